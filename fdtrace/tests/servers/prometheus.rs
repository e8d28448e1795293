//! Debian's Prometheus scrapes a running `fdtrace daemon`, with the rules under deploy/, while a real
//! server runs out of descriptors: Alertmanager is to send one alert, once.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Test,
    clients::{Answer, Clients, REDIS},
    redis,
    server::{Home, Server, prlimit, program},
    support::binary,
};

pub(crate) const TESTS: &[Test] = &[("prometheus_fires_once", fires_once)];

/// Prometheus scrapes and evaluates every second, and Alertmanager waits as long for more.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the server goes on failing after the alert was sent: many evaluations.
const LASTS: Duration = Duration::from_secs(10);

/// What Alertmanager sent.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<Value>>>);

impl Sent {
    /// Takes what is posted to a port, until the test ends.
    #[track_caller]
    fn receive() -> (Self, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Self::default();
        let (to, requests) = (sent.clone(), listener);
        thread::spawn(move || {
            for stream in requests.incoming() {
                let body = answer(stream.unwrap());
                to.0.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            }
        });
        (sent, port)
    }

    /// Each alert of each notification, of that status.
    fn alerts(&self, status: &str) -> Vec<Value> {
        let sent = self.0.lock().unwrap();
        let alerts = sent.iter().flat_map(|body| body["alerts"].as_array().unwrap());
        alerts.filter(|alert| alert["status"] == status).cloned().collect()
    }
}

/// Reads one request, and thanks for it.
fn answer(stream: TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let thanks = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    reader.get_mut().write_all(thanks).unwrap();
    body
}

/// The body that a server gives for a path.
#[track_caller]
fn get(port: u16, path: &str) -> String {
    let (head, body) = ask(port, path);
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}\n{body}");
    body
}

/// Whether a server answers for a path: it may listen before it can.
fn is_ready(port: u16, path: &str) -> bool {
    ask(port, path).0.starts_with("HTTP/1.1 200")
}

/// The head and the body that a server gives for a path.
#[track_caller]
fn ask(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn daemon() -> Server {
    let home = Home::new();
    let port = home.port;
    let config = format!(
        "[output]\nstdout = \"json\"\njournal = \"never\"\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n"
    );
    let config = home.file("fdtrace.toml", &config);
    let mut command = Command::new(binary());
    home.start(command.args(["daemon", "--config"]).arg(config), 4096, 4096)
}

#[track_caller]
fn alertmanager(webhook: u16) -> Server {
    let home = Home::new();
    // Longer than the test: what comes again comes from us.
    let config = format!(
        "route:\n  receiver: test\n  group_by: ['...']\n  group_wait: 1s\n  group_interval: 1s\n  \
         repeat_interval: 4h\n\
         receivers:\n- name: test\n  webhook_configs:\n  - url: http://127.0.0.1:{webhook}/\n"
    );
    let config = home.file("alertmanager.yml", &config);
    let mut command = Command::new(program("prometheus-alertmanager"));
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", home.path("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{}", home.port))
        .arg("--cluster.listen-address=");
    home.start(&mut command, 4096, 4096)
}

#[track_caller]
fn prometheus(fdtrace: u16, alertmanager: u16) -> Server {
    let home = Home::new();
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus/fdtrace.rules.yml");
    let config = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
         rule_files:\n- {rules}\n\
         alerting:\n  alertmanagers:\n  - static_configs:\n    - targets: ['127.0.0.1:{alertmanager}']\n\
         scrape_configs:\n- job_name: fdtrace\n  honor_labels: true\n  static_configs:\n  \
         - targets: ['127.0.0.1:{fdtrace}']\n"
    );
    let config = home.file("prometheus.yml", &config);
    let mut command = Command::new(program("prometheus"));
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", home.path("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{}", home.port));
    home.start(&mut command, 4096, 4096)
}

fn fires_once() {
    let (sent, webhook) = Sent::receive();
    let fdtrace = daemon();
    let alertmanager = alertmanager(webhook);
    let prometheus = prometheus(fdtrace.port(), alertmanager.port());
    assert_eq!(get(fdtrace.port(), "/healthz").trim(), "ok");
    for server in [&alertmanager, &prometheus] {
        wait_until("it is ready", || is_ready(server.port(), "/-/ready"));
    }
    wait_until("the first scrape", || {
        get(prometheus.port(), "/api/v1/query?query=fdtrace_build_info").contains("version")
    });

    let mut server = redis::start("");
    let mut clients = Clients::of(server.port(), REDIS);
    assert_eq!(clients.open_each(5), [Answer::Served; 5]);
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    prlimit(u64::from(server.pid()), &format!("{open}:{}", redis::LIMIT));
    let began = Instant::now();
    clients.open(1);

    let listener = format!("127.0.0.1:{}", server.port());
    let of_ours = |alert: &Value| alert["labels"]["listener"] == listener;
    let ours = |status| sent.alerts(status).into_iter().filter(of_ours).collect::<Vec<_>>();
    wait_until("an alert", || !ours("firing").is_empty());
    println!("    an alert after {:?}", began.elapsed());
    thread::sleep(LASTS);
    let fired = ours("firing");
    assert_eq!(fired.len(), 1, "sent once: {fired:#?}");
    let labels = &fired[0]["labels"];
    assert_eq!(labels["alertname"], "FdtraceExhausted");
    assert_eq!(
        (&labels["process"], &labels["failure"]),
        (&"redis-server".into(), &"EMFILE".into())
    );
    let description = fired[0]["annotations"]["description"].as_str().unwrap();
    let command = format!("fdtrace explain :{}", server.port());
    assert!(description.ends_with(&command), "{description}");

    // What Prometheus reads is what the server logged.
    clients.close_until_served();
    server.stop();
    let logged = server.lines("output", redis::FAILED).len();
    let counted = || -> usize {
        let text = get(fdtrace.port(), "/metrics");
        let lines = text.lines().filter(|line| line.starts_with("fdtrace_failures_total{"));
        let ours = lines.filter(|line| line.contains(&format!("listener=\"{listener}\"")));
        ours.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    };
    wait_until("the last count", || counted() >= logged);
    println!("    logged {logged}, counted {}", counted());
    assert_eq!(counted(), logged);
    drop(prometheus);
}
