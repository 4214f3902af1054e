//! The environment of a program and where it is looked for.

use crate::users::User;
use std::collections::BTreeMap;

pub type Environment = BTreeMap<String, String>;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What `user`'s programs see: the login variables, then the VM's defaults, then the request's.
pub fn environment(user: &User, term: Option<&str>, defaults: &Environment, request: &Environment) -> Environment {
    let name = user.name.clone().unwrap_or_else(|| if user.uid == 0 { "root".into() } else { user.uid.to_string() });
    let mut variables = Environment::from([
        ("PATH".into(), DEFAULT_PATH.into()),
        ("HOME".into(), user.home.clone()),
        ("USER".into(), name.clone()),
        ("LOGNAME".into(), name),
        ("SHELL".into(), user.shell.clone()),
    ]);
    if let Some(term) = term {
        variables.insert("TERM".into(), term.into());
    }
    for (key, value) in defaults.iter().chain(request) {
        variables.insert(key.clone(), value.clone());
    }
    variables
}

/// The files to try for `program`, in order: itself when it names a path, else one in each folder of `path`.
pub fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.into()];
    }
    // An empty entry means the working folder.
    path.split(':')
        .map(|folder| if folder.is_empty() { format!("./{program}") } else { format!("{folder}/{program}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        let (home, shell) = ("/home/ada".into(), "/bin/sh".into());
        User { name: Some("ada".into()), uid: 1000, gid: 1000, groups: vec![], home, shell }
    }

    #[test]
    fn request_overrides_defaults_and_login() {
        let defaults = Environment::from([("A".into(), "1".into()), ("HOME".into(), "/x".into())]);
        let request = Environment::from([("A".into(), "2".into())]);
        let found = environment(&user(), Some("xterm"), &defaults, &request);
        let get = |key: &str| found.get(key).map(String::as_str);
        assert_eq!(
            (get("A"), get("HOME"), get("USER"), get("TERM")),
            (Some("2"), Some("/x"), Some("ada"), Some("xterm"))
        );
        assert_eq!(environment(&user(), None, &defaults, &request).get("TERM"), None);
    }

    #[test]
    fn programs_are_looked_for_in_path_unless_they_name_a_path() {
        assert_eq!(candidates("ls", "/bin::/usr/bin"), ["/bin/ls", "./ls", "/usr/bin/ls"]);
        assert_eq!(candidates("./ls", "/bin"), ["./ls"]);
        assert_eq!(candidates("/bin/ls", ""), ["/bin/ls"]);
    }
}
