//! The image. No engine builds it here: what it copies and says must be there.

use std::{collections::BTreeSet, path::Path};

use crate::{CAPABILITIES, read, run};

#[test]
fn the_image_copies_what_there_is_and_asks_for_no_more() {
    let text = read("docker/Dockerfile");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copies = text.lines().filter_map(|line| line.strip_prefix("COPY "));
    for copy in copies.filter(|copy| !copy.starts_with("--from")) {
        let words: Vec<_> = copy.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(root.join(source).exists(), "{source} is not there");
        }
    }
    let words = text.split_whitespace();
    let added: Vec<_> = words.filter_map(|word| word.strip_prefix("--cap-add=")).collect();
    assert_eq!(added, CAPABILITIES);
}

/// distroless/cc has glibc and libgcc.
#[test]
fn the_program_needs_no_library_that_the_image_lacks() {
    const THERE: [&str; 5] = ["linux-vdso", "libgcc_s", "libc", "libm", "/lib64/ld-linux-x86-64"];
    let text = run("ldd", &[env!("CARGO_BIN_EXE_fdtrace")]);
    let needed: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.trim().split(".so").next())
        .filter(|name| !THERE.contains(name))
        .collect();
    assert!(needed.is_empty(), "{needed:?}: {text}");
}
