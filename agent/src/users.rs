//! Users and groups from /etc/passwd and /etc/group. A static binary must not ask the C library, which would load NSS modules.

use crate::failure::Failure;
use std::fs;
use std::os::unix::fs::MetadataExt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: Option<String>,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
    pub shell: String,
}

/// Keeps both files in memory while they do not change, because every exec needs them.
#[derive(Default)]
pub struct UserDatabase {
    passwd: CachedFile,
    group: CachedFile,
}

impl UserDatabase {
    /// Finds the user that `spec` names (`name`, `uid`, `name:group` or `uid:gid`), or root.
    pub fn find(&mut self, spec: Option<&str>) -> Result<User, Failure> {
        let passwd = self.passwd.text("/etc/passwd");
        let group = self.group.text("/etc/group");
        resolve(spec.unwrap_or("0"), passwd, group)
    }
}

#[derive(Default)]
struct CachedFile {
    text: String,
    /// Inode, size in bytes, modification time in s and ns.
    stamp: (u64, u64, i64, i64),
}

impl CachedFile {
    /// A missing or unreadable file is an empty one: images without users have none.
    fn text(&mut self, path: &str) -> &str {
        let stamp = fs::metadata(path).map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec())).unwrap_or_default();
        if stamp != self.stamp {
            self.text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            self.stamp = stamp;
        }
        &self.text
    }
}

fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User, Failure> {
    let (who, in_group) = match spec.split_once(':') {
        Some((who, in_group)) => (who, Some(in_group)),
        None => (spec, None),
    };
    let number = who.parse::<u32>().ok();
    let entry = passwd.lines().filter_map(passwd_entry).find(|user| match number {
        Some(uid) => user.uid == uid,
        None => user.name.as_deref() == Some(who),
    });
    let mut user = match (entry, number) {
        (Some(user), _) => user,
        (None, Some(uid)) => {
            let home = if uid == 0 { "/root" } else { "/" };
            User { name: None, uid, gid: 0, groups: Vec::new(), home: home.into(), shell: "/bin/sh".into() }
        }
        (None, None) => {
            return Err(Failure::new("EINVAL", format!("no user named {who:?} in the guest's /etc/passwd")));
        }
    };
    match in_group {
        Some(name) => user.gid = find_gid(name, group)?,
        None => user.groups = memberships(&user, group),
    }
    Ok(user)
}

fn passwd_entry(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?;
    let shell = fields.next().unwrap_or("");
    Some(User {
        name: Some(name.into()),
        uid,
        gid,
        groups: Vec::new(),
        home: if home.is_empty() { "/" } else { home }.into(),
        shell: if shell.is_empty() { "/bin/sh" } else { shell }.into(),
    })
}

/// Name, gid and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn find_gid(name: &str, group: &str) -> Result<u32, Failure> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let found = groups(group).find(|(candidate, ..)| *candidate == name);
    found
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| Failure::new("EINVAL", format!("no group named {name:?} in the guest's /etc/group")))
}

fn memberships(user: &User, group: &str) -> Vec<u32> {
    let Some(name) = user.name.as_deref() else {
        return Vec::new();
    };
    let mut found: Vec<u32> = groups(group)
        .filter(|(_, gid, members)| *gid != user.gid && members.split(',').any(|member| member == name))
        .map(|(_, gid, _)| gid)
        .collect();
    found.push(user.gid);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nbroken line\nada:x:1000:1001:Ada:/home/ada:\nnohome:x:9:9:::\n";
    const GROUP: &str = "root:x:0:\ndocker:x:998:bob,ada\nada:x:1001:\nsudo:x:27:ada\nadarem:x:5:adarem\n";

    #[test]
    fn names_numbers_and_groups_are_found() {
        let ada = resolve("ada", PASSWD, GROUP).expect("ada");
        assert_eq!((ada.uid, ada.gid, ada.home.as_str(), ada.shell.as_str()), (1000, 1001, "/home/ada", "/bin/sh"));
        assert_eq!(ada.groups, [998, 27, 1001]);
        assert_eq!(resolve("1000", PASSWD, GROUP).expect("by uid"), ada);
        let named = resolve("ada:docker", PASSWD, GROUP).expect("with group");
        assert_eq!((named.gid, named.groups), (998, vec![]));
        assert_eq!(resolve("4242:77", PASSWD, GROUP).expect("numbers").gid, 77);
        assert_eq!(resolve("0", "", "").expect("root of an empty image").home, "/root");
        assert_eq!(resolve("nohome", PASSWD, GROUP).expect("no home").home, "/");
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        assert!(resolve("eve", PASSWD, GROUP).expect_err("no eve").message.contains("\"eve\""));
        assert!(resolve("ada:nogroup", PASSWD, GROUP).expect_err("no group").message.contains("\"nogroup\""));
        assert_eq!(resolve("", PASSWD, GROUP).expect_err("empty").code, "EINVAL");
    }
}
