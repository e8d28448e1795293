//! What cannot be found out is said to be unknown, and nothing is claimed instead.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};
use serde_json::{Value, json};

use crate::{
    Test,
    clients::{Answer, Clients, HTTP},
    go,
    server::{Home, only_child, prepare, program},
    support::{Diagnosed, Fdtrace},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_process_that_is_gone_before_anybody_looks", gone),
    ("a_process_that_nobody_may_look_into", forbidden),
];

const LIMIT: u64 = 64;

/// It fails once and ends: no more than what the kernel told with the failure is known of it.
fn gone() {
    const SCRIPT: &str = "import os, socket\n\
                          listener = socket.create_server((\"127.0.0.1\", 0))\n\
                          try:\n  while True: os.dup(0)\nexcept OSError: pass\n\
                          try: listener.accept()\nexcept OSError: os._exit(0)\n";
    let mut fdtrace = Fdtrace::start(&[]);
    let mut command = Command::new(program("python3"));
    command.args(["-c", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: `prepare` makes system calls only, which is allowed between fork and exec.
    unsafe { command.pre_exec(|| prepare(LIMIT, LIMIT)) };
    // It cannot be as quick as to look while the process is still there.
    let looks = Pid::from_raw(i32::try_from(fdtrace.pid()).unwrap());
    kill(looks, Signal::SIGSTOP).unwrap();
    let mut child = command.spawn().unwrap();
    let process = json!({ "process": { "pid": child.id() } });
    assert!(child.wait().unwrap().success());
    kill(looks, Signal::SIGCONT).unwrap();
    let fields = json!({ "process": process["process"], "outcome": "exited" });
    let closed = fdtrace.reported("episode_closed", &fields);
    let run = fdtrace.stop();
    assert_eq!(run.count(&process), 1, "{:#}", run.summary());
    let diagnosed = run.of_kind("episode_diagnosed", &process);
    // Either there is something to say, and how sure that is; or nothing, and no cause is claimed.
    println!("    {} diagnoses, cause {}", diagnosed.len(), closed["cause"]);
    assert_eq!(diagnosed.is_empty(), closed["cause"].is_null(), "{closed:#}");
    for report in diagnosed {
        for diagnosis in report["diagnoses"].as_array().unwrap() {
            println!("    {diagnosis:#}");
            assert_eq!(diagnosis["certainty"], "likely");
            assert!(!unknown(diagnosis).is_empty(), "{diagnosis:#}");
            // There is nobody any more whose limit could be raised.
            assert_no_process_is_told_of(diagnosis, child.id());
        }
    }
    run.assert_lost_nothing();
}

#[track_caller]
fn assert_no_process_is_told_of(diagnosis: &Value, pid: u32) {
    for remedy in diagnosis["remedies"].as_array().unwrap() {
        let command = remedy["command"].as_str().unwrap_or_default();
        assert!(!command.contains(&pid.to_string()), "{diagnosis:#}");
    }
}

/// A user's own processes and files, and a root that may not look into those of others.
fn forbidden() {
    let nobody = User::from_name("nobody").unwrap().expect("the user nobody");
    let home = Home::new();
    let text = format!(
        "ulimit -n {LIMIT}\n{program} {port}\nexit\n",
        program = go::build().display(),
        port = home.port
    );
    let script = home.file("start.sh", &text);
    fs::set_permissions(&script, Permissions::from_mode(0o600)).unwrap();
    chown(&script, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
    let mut command = Command::new("sh");
    command.arg(&script).uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
    let mut server = home.start(&mut command, 1024, 1024);

    let mut fdtrace = Fdtrace::start_changed(&[], give_up_looking);
    let pid = only_child(server.pid());
    let mut clients = Clients::of(server.port(), HTTP);
    assert_eq!(clients.open_until_refused(100).1, Answer::Waiting);
    let fields = json!({ "process": { "pid": pid, "comm": go::PROGRAM }, "failure": "EMFILE" });
    let said = Diagnosed::of(&mut fdtrace, &fields);
    // What everybody may read is told, and how sure that is.
    said.is("hard_limit_low", "likely", &[&format!("inherited from sh[{}]", server.pid())]);
    assert!(!said.first()["why"].as_str().unwrap().contains("start.sh"), "{:#}", said.first());
    let unread = format!("could not read {}", script.display());
    let is_told = unknown(said.first()).iter().any(|what| what.starts_with(&unread));
    assert!(is_told, "{:#}", said.first());
    // What they are, a program in the kernel tells since 6.1; what they are called, nobody.
    for diagnosis in said.0["diagnoses"].as_array().unwrap() {
        let knows_kinds = diagnosis["cause"] == "load" && diagnosis["certainty"] == "likely";
        let unread = unknown(diagnosis).iter().any(|what| what.starts_with("the paths of files: "));
        assert!(diagnosis["cause"] == "hard_limit_low" || knows_kinds && unread, "{:#}", said.0);
    }
    let run = fdtrace.stop();
    server.stop();
    let logged = server.lines("output", go::FAILED).len() as u64;
    assert!((1..=logged).contains(&run.count(&fields)), "{logged}: {:#}", run.summary());
}

fn unknown(diagnosis: &Value) -> Vec<&str> {
    diagnosis["unknown"].as_array().unwrap().iter().map(|what| what.as_str().unwrap()).collect()
}

/// `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH`, `CAP_SYS_PTRACE`: without them, root may read no more of
/// others than anybody.
fn give_up_looking() -> io::Result<()> {
    for capability in [1, 2, 19] {
        // SAFETY: numbers only. What the bounding set lacks, exec does not give (capabilities(7)).
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
