//! The commands of README.md work. As root: they attach.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};

/// The lines of README.md's `console` blocks.
fn commands() -> Vec<String> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let blocks = text.split("```console\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    lines.map(str::to_owned).collect()
}

/// Runs a program for a moment.
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{program} {args:?}: {err}");
    assert!(!out.is_empty(), "{program} {args:?} says nothing");
}

#[test]
fn every_command_of_the_readme_works() {
    let commands = commands();
    assert!(commands.len() > 4, "{commands:?}");
    for command in &commands {
        let words: Vec<_> = command.split_whitespace().collect();
        match words[..] {
            // It is what runs this test.
            ["cargo", "xtask", "test"] => {}
            ["cargo", "run", "--release"] => {
                run("cargo", &["run", "--release", "--quiet", "--", "--duration", "300ms"]);
            }
            [
                "fdtrace",
                once @ ("--help" | "listeners" | "explain" | "audit" | "doctor"),
                ref args @ ..,
            ] => {
                run(env!("CARGO_BIN_EXE_fdtrace"), &[&[once], args].concat());
            }
            ["fdtrace", ref args @ ..] => {
                // The shorter duration wins: clap refuses two.
                let mut args: Vec<_> = args.to_vec();
                if let Some(at) = args.iter().position(|word| *word == "--duration") {
                    args.drain(at..at + 2);
                }
                args.extend(["--duration", "300ms"]);
                run(env!("CARGO_BIN_EXE_fdtrace"), &args);
            }
            _ => panic!("nobody tests `{command}`"),
        }
    }
}
