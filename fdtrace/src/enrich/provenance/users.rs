//! Names and groups of users, from `/etc/passwd` and `/etc/group`.
//!
//! Users that only a directory service knows stay without a name.

use std::path::{Path, PathBuf};

use super::root::Root;

/// A user as far as the files know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: Option<u32>,
    pub(super) name: Option<String>,
    pub(super) home: Option<PathBuf>,
    /// Names and numbers of all groups.
    pub(super) groups: Vec<(String, u32)>,
}

/// Looks a user up. `gid` stands in where the user is not in the file.
pub(super) fn user(root: &Root, uid: u32, gid: Option<u32>, unknown: &mut Vec<String>) -> User {
    let mut text = |path: &str| {
        root.read(Path::new(path)).unwrap_or_else(|error| {
            unknown.push(error);
            None
        })
    };
    let passwd = text("/etc/passwd").map(|text| text.text).unwrap_or_default();
    let groups = text("/etc/group").map(|text| text.text).unwrap_or_default();
    let mut user = User { uid, gid, ..User::default() };
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, number, group, _, home, ..] = fields[..]
            && number.parse() == Ok(uid)
        {
            user.name = Some(name.to_owned());
            user.gid = group.parse().ok();
            user.home = Some(home.into());
            break;
        }
    }
    if user.name.is_none() {
        unknown.push(format!("user {uid} is not in /etc/passwd"));
    }
    for line in groups.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, number, members] = fields[..]
            && let Ok(number) = number.parse()
        {
            let is_member = members.split(',').any(|member| Some(member) == user.name.as_deref());
            if is_member || user.gid == Some(number) {
                user.groups.push((name.to_owned(), number));
            }
        }
    }
    user
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn from_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "bad\nann:x:1000:100:A:/home/ann:/bin/sh\n")
            .unwrap();
        fs::write(dir.path().join("etc/group"), "users:x:100:\nwww:x:33:bob,ann\nbad\nx:x:1:bob\n")
            .unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut unknown = Vec::new();
        let ann = user(&root, 1000, None, &mut unknown);
        assert_eq!(ann.name.as_deref(), Some("ann"));
        assert_eq!(ann.home.as_deref(), Some(Path::new("/home/ann")));
        assert_eq!(ann.groups, [("users".to_owned(), 100), ("www".to_owned(), 33)]);
        assert!(unknown.is_empty());
        let other = user(&root, 7, Some(33), &mut unknown);
        assert_eq!((other.name, other.groups), (None, vec![("www".to_owned(), 33)]));
        assert_eq!(unknown, ["user 7 is not in /etc/passwd"]);
    }
}
