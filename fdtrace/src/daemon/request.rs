//! A request of HTTP/1 → what is answered. As little of it as Prometheus, curl and probes need.

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Metrics,
    Health,
}

/// A request that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) asked: Asked,
    /// HEAD: everything but the body.
    pub(super) is_head: bool,
}

/// Why one is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    NoSuchPath,
    Method,
    TooLarge,
}

/// An answer to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Reads the first line of a head that is there whole.
pub(super) fn parse(head: &[u8]) -> Result<Request, Refusal> {
    let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Refusal::Malformed)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(Refusal::Malformed);
    }
    let path = target.split('?').next().unwrap_or_default();
    let asked = match path {
        "/metrics" => Asked::Metrics,
        "/healthz" => Asked::Health,
        _ => return Err(Refusal::NoSuchPath),
    };
    match method {
        "GET" => Ok(Request { asked, is_head: false }),
        "HEAD" => Ok(Request { asked, is_head: true }),
        _ => Err(Refusal::Method),
    }
}

impl Answer {
    pub(super) const fn metrics(content_type: &'static str, body: String) -> Self {
        Self { status: "200 OK", content_type, body }
    }

    pub(super) fn health(problems: &[String]) -> Self {
        if problems.is_empty() {
            return Self { status: "200 OK", content_type: TEXT, body: "ok\n".to_owned() };
        }
        Self::unavailable(problems.join("\n") + "\n")
    }

    pub(super) const fn unavailable(body: String) -> Self {
        Self { status: "503 Service Unavailable", content_type: TEXT, body }
    }

    pub(super) fn refusal(refusal: Refusal) -> Self {
        let (status, body) = match refusal {
            Refusal::Malformed => ("400 Bad Request", "this is no request of HTTP/1\n"),
            Refusal::NoSuchPath => ("404 Not Found", "there are /metrics and /healthz\n"),
            Refusal::Method => ("405 Method Not Allowed", "there are GET and HEAD\n"),
            Refusal::TooLarge => ("431 Request Header Fields Too Large", "too large\n"),
        };
        Self { status, content_type: TEXT, body: body.to_owned() }
    }

    /// What is sent. There is one request on a connection.
    pub(super) fn to_bytes(&self, is_head: bool) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             {allow}Connection: close\r\n\r\n",
            body.len()
        );
        let body = if is_head { "" } else { body };
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let get = |asked| Ok(Request { asked, is_head: false });
        let cases: &[(&str, Result<Request, Refusal>)] = &[
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", get(Asked::Metrics)),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", get(Asked::Metrics)),
            ("GET /healthz HTTP/1.1\n\n", get(Asked::Health)),
            ("HEAD /healthz HTTP/1.1\r\n", Ok(Request { asked: Asked::Health, is_head: true })),
            ("POST /metrics HTTP/1.1\r\n", Err(Refusal::Method)),
            ("POST / HTTP/1.1\r\n", Err(Refusal::NoSuchPath)),
            ("GET /metrics/ HTTP/1.1\r\n", Err(Refusal::NoSuchPath)),
            ("GET http://x/metrics HTTP/1.1\r\n", Err(Refusal::Malformed)),
            ("GET /metrics HTTP/2.0\r\n", Err(Refusal::Malformed)),
            ("GET  /metrics HTTP/1.1\r\n", Err(Refusal::Malformed)),
            ("GET /metrics\r\n", Err(Refusal::Malformed)),
            ("", Err(Refusal::Malformed)),
        ];
        for (head, expected) in cases {
            assert_eq!(parse(head.as_bytes()), *expected, "{head}");
        }
        assert_eq!(parse(b"GET /\xff HTTP/1.1\r\n"), Err(Refusal::Malformed));
    }

    #[test]
    fn answers() {
        let ok = Answer::health(&[]);
        let text = String::from_utf8(ok.to_bytes(false)).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nok\n"),
            "{text}"
        );
        let head = String::from_utf8(ok.to_bytes(true)).unwrap();
        assert!(head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let wrong = Answer::health(&["a".to_owned(), "b".to_owned()]);
        assert_eq!((wrong.status, wrong.body.as_str()), ("503 Service Unavailable", "a\nb\n"));
        let text = String::from_utf8(Answer::refusal(Refusal::Method).to_bytes(false)).unwrap();
        assert!(text.contains("\r\nAllow: GET, HEAD\r\n"), "{text}");
    }
}
