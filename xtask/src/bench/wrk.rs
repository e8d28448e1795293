//! Requests to nginx by wrk: a real server, and traffic that is no system call of ours.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    attachment::{Attachment, Tool},
    sample::Bench,
    statistics::Spread,
};
use crate::{proc::output, repo};

const PORT: u16 = 18_742;

#[derive(Debug, Serialize)]
pub(crate) struct Nginx {
    /// Requests in a second with nothing attached.
    pub(crate) nothing: Spread,
    /// Of that rate, with empty programs, and with fdtrace.
    pub(crate) empty: Spread,
    pub(crate) fdtrace: Spread,
}

/// `None` where one of the two is not installed.
pub(crate) fn run(bench: &Bench<'_>) -> Result<Option<Nginx>> {
    let (Some(nginx), Some(wrk)) = (repo::find_program("nginx"), repo::find_program("wrk")) else {
        println!("  without nginx: it or wrk is not installed");
        return Ok(None);
    };
    let home = tempfile::tempdir()?;
    let configuration = home.path().join("nginx.conf");
    fs::write(&configuration, CONFIGURATION.replace("{home}", &home.path().to_string_lossy()))?;
    // Each on a CPU of its own: where the scheduler puts them makes more difference than fdtrace.
    let server = on_cpu(0)
        .arg(nginx)
        .arg("-c")
        .arg(&configuration)
        .arg("-p")
        .arg(home.path())
        .stderr(Stdio::null())
        .spawn()
        .context("start nginx")?;
    let server = Server(server);
    thread::sleep(Duration::from_millis(300));
    let attachments = [Attachment::Nothing, Attachment::Empty, Attachment::Fdtrace];
    let mut rates = [const { Vec::new() }; 3];
    for turn in 0..bench.turns as usize {
        for place in 0..3 {
            let index = (turn + place) % 3;
            let tool = attachments[index].start(bench.fdtrace, server.0.id())?;
            let text = output(on_cpu(1).arg(&wrk).args(["-t1", "-c16", "-d2s", &url()]))?;
            rates[index].push(rate(&text).context("wrk says no rate")?);
            tool.map(Tool::stop).transpose()?;
        }
    }
    let share = |index: usize| {
        let pairs = rates[index].iter().zip(&rates[0]);
        Spread::of(&pairs.map(|(a, b)| a / b).collect::<Vec<_>>()).context("no samples")
    };
    let nginx = Nginx {
        nothing: Spread::of(&rates[0]).context("no samples")?,
        empty: share(1)?,
        fdtrace: share(2)?,
    };
    println!("  nginx {nginx:?}");
    Ok(Some(nginx))
}

fn on_cpu(number: usize) -> Command {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut command = Command::new("taskset");
    command.arg("--cpu-list").arg((number % cpus).to_string());
    command
}

fn url() -> String {
    format!("http://127.0.0.1:{PORT}/")
}

fn rate(output: &str) -> Option<f64> {
    output.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())
}

/// In the foreground, so that its pid is our child's.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CONFIGURATION: &str = "daemon off; master_process off; worker_processes 1;
pid {home}/pid; error_log {home}/error.log;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server { listen 127.0.0.1:18742; location / { return 200 'ok'; } }
}
";
