//! Shell patterns in file names, as in `include` lines.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use super::root::Root;

/// More files than this are not included.
const MOST_FILES: usize = 256;

/// The files that an absolute pattern names, sorted; a name without pattern stands for itself.
pub(super) fn files(root: &Root, pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.components() {
        let Component::Normal(part) = component else { continue };
        let part = part.as_bytes();
        if !part.iter().any(|byte| b"*?[".contains(byte)) {
            for path in &mut found {
                path.push(component);
            }
            continue;
        }
        let mut matching = Vec::new();
        for dir in found {
            let names = root.list(&dir).unwrap_or_default();
            // glob(3) leaves out hidden names unless the pattern starts with a dot.
            let visible = names.iter().filter(|name| part[0] == b'.' || name.as_bytes()[0] != b'.');
            let wanted = visible.filter(|name| matches(part, name.as_bytes()));
            matching.extend(wanted.map(|name| dir.join(name)));
        }
        matching.truncate(MOST_FILES);
        found = matching;
    }
    found
}

/// Whether a name matches `*`, `?`, `[a-z]`, `[!a]` and plain bytes.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    // Where the last star was, and what it has eaten.
    let mut star = None;
    while of < name.len() {
        let step = match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[at..], name[of]),
            Some(byte) => (*byte == name[of]).then_some(1),
            None => None,
        };
        if let Some(step) = step {
            at += step;
            of += 1;
        } else if let Some((star_at, eaten)) = star {
            star = Some((star_at, eaten + 1));
            at = star_at + 1;
            of = eaten + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// The length of the class that a pattern starts with, if the byte is in it.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = 2 + pattern.get(2..)?.iter().position(|byte| *byte == b']')?;
    let (is_negated, set) = match &pattern[1..end] {
        [b'!' | b'^', set @ ..] => (true, set),
        set => (false, set),
    };
    let mut is_in = false;
    let mut rest = set;
    while let Some(first) = rest.first() {
        let eaten = if let [low, b'-', high, ..] = rest {
            is_in |= (*low..=*high).contains(&byte);
            3
        } else {
            is_in |= *first == byte;
            1
        };
        rest = &rest[eaten..];
    }
    (is_in != is_negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, is_match) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?.c", "x.c", true),
            ("?.c", ".c", false),
            ("[0-9]x", "7x", true),
            ("[!0-9]x", "7x", false),
            ("[ab]", "b", true),
            ("[", "[", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn expansion() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/2.conf", "b/1.conf", "b/.hidden.conf", "a/3.conf", "a/x.txt"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let expand = |pattern: &str| files(&root, Path::new(pattern));
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(expand("/*/*.conf"), paths(&["/a/3.conf", "/b/1.conf", "/b/2.conf"]));
        assert_eq!(expand("/a/x.txt"), paths(&["/a/x.txt"]));
        assert!(expand("/none/*.conf").is_empty());
    }
}
