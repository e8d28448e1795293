//! Command lines, good and bad.

use std::ffi::OsStr;

use clap::error::ErrorKind;

use super::*;
use crate::model::{Comm, Pid};
use crate::{
    kernel::{Buffer, FormChoice, Request},
    model::{Filter, Level, ListenerFilter, ListenerQuery, Subject, UnixName},
};

fn parse(args: &[&str]) -> Result<Settings, clap::Error> {
    parse_from([&["fdtrace"], args].concat())
}

#[track_caller]
fn settings(args: &[&str]) -> TraceSettings {
    match parse(args).unwrap_or_else(|error| panic!("{error}")) {
        Settings::Trace(settings) => settings,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn listeners(args: &[&str]) -> ListenersSettings {
    let args = [&["listeners"], args].concat();
    match parse(&args).unwrap_or_else(|error| panic!("{error}")) {
        Settings::Listeners(settings) => settings,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(args: &[&str], message: &str) {
    let error = parse(args).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(message), "{text}");
    assert_eq!(error.exit_code(), i32::from(ExitCode::Usage as u8));
    assert!(error.use_stderr());
}

#[test]
fn forms_are_asked_for_at_once_or_by_probe() {
    let asked = settings(&["--form", "fexit,ack=kprobe", "--fds"]).request;
    assert!(asked.fds);
    let forms: Vec<_> = asked.forms.iter().map(|form| (form.probe.as_deref(), form.form)).collect();
    assert_eq!(forms, [(None, FormChoice::Fexit), (Some("ack"), FormChoice::Kprobe)]);
    refused(&["--form", "ptrace"], "give auto, fexit, kprobe or tracepoint");
    refused(&["--form", "accept="], "give auto, fexit, kprobe or tracepoint");
    refused(&["--form", "dial=fexit"], "there is no probe `dial`; there are accept, socket,");
}

#[test]
fn definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn defaults() {
    let expected = TraceSettings {
        filter: Filter::default(),
        warn_at: Thresholds::new(vec![80, 95]).unwrap(),
        interval: Duration::from_secs(5),
        duration: None,
        json: false,
        colour: ColourChoice::Auto,
        fail_on_exhaustion: false,
        request: Request::default(),
        btf: PathBuf::from("/sys/kernel/btf/vmlinux"),
        max_keys: fdtrace_common::DEFAULT_SLOTS,
        ring_bytes: fdtrace_common::DEFAULT_RING_BYTES,
        verbose: 0,
    };
    assert_eq!(settings(&[]), expected);
    assert_eq!(settings(&["trace"]), expected);
}

#[test]
fn every_flag_with_and_without_the_command() {
    let flags = [
        "--pid=1,2",
        "--pid",
        "3",
        "--port=80,443",
        "--comm=nginx,tmux: server",
        "--errno",
        "emfile,23",
        "--warn-at=90,70",
        "--interval=500ms",
        "--duration=1h",
        "--json",
        "--color=always",
        "--fail-on-exhaustion",
        "--btf=/tmp/btf",
        "--max-keys=64",
        "--ring-bytes=4096",
        "--buffer=perf",
        "-vv",
    ];
    let expected = TraceSettings {
        filter: Filter {
            pids: vec![Pid(1), Pid(2), Pid(3)],
            ports: vec![80, 443],
            comms: vec![Comm::from_bytes(b"nginx"), Comm::from_bytes(b"tmux: server")],
            errnos: vec![Errno::EMFILE, Errno::ENFILE],
        },
        warn_at: Thresholds::new(vec![70, 90]).unwrap(),
        interval: Duration::from_millis(500),
        duration: Some(Duration::from_secs(3600)),
        json: true,
        colour: ColourChoice::Always,
        fail_on_exhaustion: true,
        request: Request { buffer: Some(Buffer::Perf), ..Request::default() },
        btf: PathBuf::from("/tmp/btf"),
        max_keys: 64,
        ring_bytes: 4096,
        verbose: 2,
    };
    assert_eq!(settings(&flags), expected);
    assert_eq!(settings(&[&["trace"][..], &flags].concat()), expected);
    assert_eq!(settings(&["--colour", "never"]).colour, ColourChoice::Never);
    assert_eq!(settings(&["--comm", "123456789012345"]).filter.comms.len(), 1);
}

#[test]
fn when_to_warn() {
    assert_eq!(settings(&["--warn-at", "off"]).warn_at, Thresholds::default());
    assert_eq!(settings(&["--warn-at", "50"]).warn_at.percents(), [50]);
    for wrong in ["0", "100", "80,", "", "80 95", "on", "-5", "1000"] {
        refused(&[&format!("--warn-at={wrong}")], "give percents from 1 to 99");
    }
}

#[test]
fn every_flag_of_listeners() {
    let defaults = ListenersSettings {
        filter: ListenerFilter::default(),
        unix: false,
        json: false,
        colour: ColourChoice::Auto,
        fail_on_exhaustion: false,
        verbose: 0,
    };
    assert_eq!(listeners(&[]), defaults);
    let flags = [
        "--pid=1,2",
        "--port=80",
        "--port",
        "443",
        "--comm=nginx,tmux: server",
        "--unix",
        "--json",
        "--color=never",
        "--fail-on-exhaustion",
        "-v",
    ];
    let expected = ListenersSettings {
        filter: ListenerFilter {
            pids: vec![Pid(1), Pid(2)],
            ports: vec![80, 443],
            comms: vec![Comm::from_bytes(b"nginx"), Comm::from_bytes(b"tmux: server")],
        },
        unix: true,
        json: true,
        colour: ColourChoice::Never,
        fail_on_exhaustion: true,
        verbose: 1,
    };
    assert_eq!(listeners(&flags), expected);
    refused(&["listeners", "--port", "0"], "give a port from 1 to 65535");
    refused(&["listeners", "--errno", "EMFILE"], "unexpected argument '--errno'");
}

#[track_caller]
fn subject(text: &str) -> Subject {
    match parse(&["explain", text]).unwrap_or_else(|error| panic!("{error}")) {
        Settings::Explain(settings) => settings.subject,
        settings => panic!("{settings:?}"),
    }
}

#[test]
fn what_to_explain() {
    let listener = Subject::Listener;
    let address = |ip: &str, port| ListenerQuery::Address(ip.parse().unwrap(), port);
    let unix = |name| listener(ListenerQuery::Unix(name));
    assert_eq!(subject("14807"), Subject::Pid(Pid(14807)));
    assert_eq!(subject(":9088"), listener(ListenerQuery::Port(9088)));
    assert_eq!(subject("*:9088"), listener(ListenerQuery::Port(9088)));
    assert_eq!(subject("127.0.0.1:80"), listener(address("127.0.0.1", 80)));
    assert_eq!(subject("[::1]:80"), listener(address("::1", 80)));
    assert_eq!(subject("unix:/run/x"), unix(UnixName::Path(b"/run/x".to_vec())));
    assert_eq!(subject("/run/x"), unix(UnixName::Path(b"/run/x".to_vec())));
    assert_eq!(subject("unix:@x"), unix(UnixName::Abstract(b"x".to_vec())));
    for name in ["nginx", "nginx.service", "tmux: server", "user@1000.service", "a:80"] {
        assert_eq!(subject(name), Subject::Name(name.to_owned()));
    }
    refused(&["explain"], "<PID|:PORT|NAME>");
    refused(&["explain", ""], "give a PID, :PORT, unix:PATH or the name");
    refused(&["explain", "0"], "give the number of a process");
    refused(&["explain", ":0"], "give a port from 1 to 65535");
    refused(&["explain", ":http"], "give a port from 1 to 65535");
    refused(&["explain", "127.0.0.1:"], "give a port from 1 to 65535");
    refused(&["explain", "::1:80"], "write an IPv6 address and its port as [ADDRESS]:PORT");
}

#[test]
fn every_flag_of_audit() {
    let of = |args: &[&str]| match parse(&[&["audit"], args].concat()).unwrap() {
        Settings::Audit(settings) => settings,
        settings => panic!("{settings:?}"),
    };
    let defaults = AuditSettings {
        all: false,
        fail_on: None,
        json: false,
        colour: ColourChoice::Auto,
        verbose: 0,
    };
    assert_eq!(of(&[]), defaults);
    let all = AuditSettings {
        all: true,
        fail_on: Some(Level::Risk),
        json: true,
        colour: ColourChoice::Always,
        verbose: 1,
    };
    assert_eq!(of(&["--all", "--fail-on=risk", "--json", "--color=always", "-v"]), all);
    assert_eq!(of(&["--fail-on", "warn"]).fail_on, Some(Level::Warn));
    refused(&["audit", "--fail-on", "fine"], "[possible values: warn, risk]");
}

#[test]
fn every_flag_of_doctor() {
    let doctor = |args: &[&str]| match parse(&[&["doctor"], args].concat()) {
        Ok(Settings::Doctor(settings)) => settings,
        other => panic!("{other:?}"),
    };
    let defaults = DoctorSettings {
        request: Request::default(),
        btf: PathBuf::from("/sys/kernel/btf/vmlinux"),
        json: false,
        colour: ColourChoice::Auto,
        verbose: 0,
    };
    assert_eq!(doctor(&[]), defaults);
    let form = FormRequest { probe: Some("ack".to_owned()), form: FormChoice::Kprobe };
    let expected = DoctorSettings {
        request: Request { forms: vec![form], fds: true, buffer: Some(Buffer::Ring) },
        btf: PathBuf::from("/tmp/btf"),
        json: true,
        colour: ColourChoice::Always,
        verbose: 1,
    };
    let flags = [
        "--fds",
        "--form=ack=kprobe",
        "--buffer=ring",
        "--btf",
        "/tmp/btf",
        "--json",
        "--color=always",
        "-v",
    ];
    assert_eq!(doctor(&flags), expected);
    refused(&["doctor", "--buffer", "pipe"], "give ring or perf");
    refused(&["doctor", "--pid", "1"], "unexpected argument '--pid'");
    // Nobody needs to know it, and nothing starts it by accident.
    assert!(matches!(parse(&[SELF_TEST]), Ok(Settings::SelfTest)));
    assert!(!Cli::command().render_long_help().to_string().contains(SELF_TEST));
}

#[test]
fn durations() {
    let cases = [
        ("1ms", 1),
        ("500ms", 500),
        ("10s", 10_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("7d", 604_800_000),
    ];
    for (text, millis) in cases {
        assert_eq!(settings(&["--duration", text]).duration, Some(Duration::from_millis(millis)));
    }
    let example = "give a number and its unit: 500ms, 10s, 2m, 1h, 1d";
    for text in ["", "10", "s", "1.5s", "+1s", "1 s", "1w", "10S", "１s"] {
        refused(&["--duration", text], example);
    }
    refused(&["--duration=-1s"], example);
    refused(&["--duration", "0s"], "give more than nothing");
    refused(&["--duration", "99999999999999999999s"], "longer than any run");
    refused(&["--duration", "9999999999999999d"], "longer than any run");
    refused(&["--interval", "0s"], "give more than nothing");
    refused(&["--interval", "99ms"], "give 100ms or more");
    assert_eq!(settings(&["--interval", "100ms"]).interval, Duration::from_millis(100));
}

#[test]
fn filters_that_would_match_nothing_are_refused() {
    let pid = "give the number of a process";
    for text in ["", "0", "nginx", "-1", "1,", "2147483648"] {
        refused(&[&format!("--pid={text}")], pid);
    }
    for text in ["", "0", "65536", "http", "80,"] {
        refused(&["--port", text], "give a port from 1 to 65535");
    }
    refused(&["--comm", ""], "give the name of a process");
    refused(&["--comm", "nginx,"], "give the name of a process");
    refused(
        &["--comm", "dataforwardserver"],
        "'--comm <NAME>': the kernel keeps 15 bytes of a name, so none is that long; \
         try 'dataforwardserv'",
    );
    // Cut between characters.
    refused(&["--comm", "日本日本日本"], "try '日本日本日'");
    for text in ["", "0", "4096", "EWHAT", "EMFILE,"] {
        refused(&["--errno", text], "give a number from 1 to 4095 or one of EPERM, ");
    }
    refused(&["--errno", "EWHAT"], "ENFILE, EMFILE");
}

#[test]
fn other_mistakes() {
    refused(&["--max-keys", "0"], "0 is not in 1..=65536");
    refused(&["--max-keys", "65537"], "65537 is not in 1..=65536");
    for text in ["", "0", "2048", "5000", "4294967296"] {
        refused(&["--ring-bytes", text], "give a power of two, 4096 or more");
    }
    refused(&["--colour", "blue"], "[possible values: auto, always, never]");
    refused(&["--btf", ""], "a value is required for '--btf <FILE>'");
    refused(&["--pid"], "a value is required for '--pid <PID>'");
    refused(&["--prot", "80"], "a similar argument exists: '--port'");
    refused(&["tarce"], "unrecognized subcommand 'tarce'");
    refused(&["--json", "trace"], "cannot be used with");
}

#[test]
fn help_and_version_are_no_mistakes() {
    for (flag, kind) in [
        ("--help", ErrorKind::DisplayHelp),
        ("-h", ErrorKind::DisplayHelp),
        ("--version", ErrorKind::DisplayVersion),
    ] {
        let error = parse(&[flag]).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 0));
        assert!(!error.use_stderr());
    }
}

/// Read the texts as prose before you change them here.
#[test]
fn help_is_as_written_down() {
    let texts = [
        (&["fdtrace", "--help"][..], "help.txt", include_str!("help.txt")),
        (&["fdtrace", "listeners", "--help"], "listeners.txt", include_str!("listeners.txt")),
        (&["fdtrace", "doctor", "--help"], "doctor.txt", include_str!("doctor.txt")),
        (&["fdtrace", "explain", "--help"], "explain.txt", include_str!("explain.txt")),
        (&["fdtrace", "audit", "--help"], "audit.txt", include_str!("audit.txt")),
        (&["fdtrace", "daemon", "--help"], "daemon.txt", include_str!("daemon.txt")),
    ];
    for (args, file, expected) in texts {
        let command = Cli::command().term_width(100);
        let help = command.try_get_matches_from(args).unwrap_err().to_string();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/");
            std::fs::write(format!("{dir}{file}"), &help).unwrap();
        } else {
            assert_eq!(help, expected, "UPDATE_EXPECTED=1 cargo test writes {file}");
        }
    }
}

#[test]
fn colour() {
    let on = |choice: ColourChoice, terminal, no_color: Option<&str>| {
        choice.is_on(terminal, no_color.map(OsStr::new))
    };
    assert!(on(ColourChoice::Auto, true, None));
    assert!(on(ColourChoice::Auto, true, Some("")));
    assert!(!on(ColourChoice::Auto, true, Some("1")));
    assert!(!on(ColourChoice::Auto, false, None));
    assert!(on(ColourChoice::Always, false, Some("1")));
    assert!(!on(ColourChoice::Never, true, None));
}

#[track_caller]
fn text(args: &[&str]) -> String {
    match parse(args).unwrap_or_else(|error| panic!("{error}")) {
        Settings::Text(text) => String::from_utf8(text).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_shell_completes_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let text = text(&["completions", shell]);
        assert!(text.contains("listeners") && text.contains("fail-on-exhaustion"), "{shell}");
        // What only fdtrace itself runs is for nobody to type.
        assert!(!text.contains(SELF_TEST), "{shell}");
    }
    refused(&["completions", "tcsh"], "[possible values: bash, ");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let main = text(&["man"]);
    assert!(main.contains(".TH fdtrace 1"), "{main}");
    assert!(!main.contains(SELF_TEST) && !main.contains(r"fdtrace\-man"), "{main}");
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        assert!(main.contains(&format!(r"fdtrace\-{name}(1)")), "{name}: {main}");
        let page = text(&["man", name]);
        assert!(page.contains(&format!(".TH fdtrace-{name} 1")), "{page}");
    }
    refused(&["man", SELF_TEST], "no command");
    refused(&["man", "nonsense"], "no command");
}
