//! Files, archives and connections through the real agent.

mod client;

use client::{Agent, CLOSE, DATA, END, Folder, OPENED, code, noise};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use tar::{Builder, EntryType, Header};

#[test]
fn a_written_file_is_read_back_with_its_mode() {
    let (mut agent, folder) = (Agent::start(), Folder::new());
    let (path, contents) = (folder.path("a/b/file"), noise(700_000));
    let request = json!({"op": "write", "path": path, "mode": 0o640, "parents": true, "size": contents.len()});
    assert_eq!(agent.call_with(request, &contents).result, json!({"ok": {"size": 700_000}}));
    let read = agent.call(json!({"op": "read", "path": path}));
    assert!(read.out == contents);
    assert_eq!(read.result, json!({"ok": {"size": 700_000, "mode": 0o640}}));
    let part = agent.call(json!({"op": "read", "path": path, "offset": 1000, "length": 50_000}));
    assert!(part.out == contents[1000..51_000]);
    assert!(agent.call(json!({"op": "read", "path": "/proc/cpuinfo"})).out.starts_with(b"processor"));
}

#[test]
fn a_write_that_does_not_end_leaves_nothing() {
    let (mut agent, folder) = (Agent::start(), Folder::new());
    let path = folder.path("file");
    fs::write(&path, "old").expect("a file");
    let request = json!({"op": "write", "path": path});
    let stream = agent.open(&request);
    agent.send(DATA, 0, stream, b"new");
    agent.send(CLOSE, 0, stream, b"");
    let closed = agent.wait_for(|frame| frame.stream == stream && frame.kind == CLOSE).json();
    assert_eq!(closed["error"]["code"], "ECANCELED");
    let stream = agent.open(&request);
    agent.send(DATA, 0, stream, b"new");
    agent.sync();
    // A request answered later: by now the old stream's worker has been told.
    agent.exec(&["sleep", "0.2"]);
    let ended = agent.call_with(json!({"op": "write", "path": path, "size": 4}), b"new");
    assert_eq!(code(&ended), "EPIPE");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "old");
    assert_eq!(fs::read_dir(&folder.0).expect("the folder").count(), 1);
}

#[test]
fn writing_follows_links_and_spares_devices() {
    let (mut agent, folder) = (Agent::start(), Folder::new());
    fs::write(folder.path("real"), "old").expect("a file");
    symlink("real", folder.path("link")).expect("a link");
    agent.call_with(json!({"op": "write", "path": folder.path("link")}), b"new");
    assert!(fs::symlink_metadata(folder.path("link")).expect("the link").is_symlink());
    assert_eq!(fs::read_to_string(folder.path("real")).expect("the file"), "new");
    assert_eq!(agent.call_with(json!({"op": "write", "path": "/dev/null"}), b"x").result, json!({"ok": {"size": 1}}));
    assert_eq!(code(&agent.call_with(json!({"op": "write", "path": folder.path("")}), b"x")), "EISDIR");
}

#[test]
fn stat_and_list_tell_what_is_there() {
    let (mut agent, folder) = (Agent::start(), Folder::new());
    fs::write(folder.path("file"), "12345").expect("a file");
    symlink("file", folder.path("link")).expect("a link");
    let ok = |finished: client::Finished| finished.result["ok"].clone();
    let followed = ok(agent.call(json!({"op": "stat", "path": folder.path("link")})));
    assert_eq!((followed["type"].as_str(), followed["size"].as_u64()), (Some("file"), Some(5)));
    let link = ok(agent.call(json!({"op": "stat", "path": folder.path("link"), "follow": false})));
    assert_eq!((link["type"].as_str(), link["target"].as_str()), (Some("link"), Some("file")));
    let listed = agent.call(json!({"op": "list", "path": folder.path("")}));
    assert_eq!(listed.result, json!({"ok": {"count": 2}}));
    let lines: Vec<Value> =
        listed.out.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert!(lines.iter().any(|line| line["name"] == "link" && line["target"] == "file"));
    assert_eq!(code(&agent.call(json!({"op": "stat", "path": folder.path("none")}))), "ENOENT");
}

#[test]
fn an_archive_goes_out_and_in_unchanged() {
    let (mut agent, folder) = (Agent::start(), Folder::new());
    fs::create_dir_all(folder.path("from/sub")).expect("folders");
    let long = "n".repeat(150);
    let big = noise(300_001);
    fs::write(folder.path("from/big"), &big).expect("a file");
    fs::write(folder.path(&format!("from/sub/{long}")), "long").expect("a file");
    fs::set_permissions(folder.path("from/big"), PermissionsExt::from_mode(0o750)).expect("a mode");
    fs::hard_link(folder.path("from/big"), folder.path("from/sub/same")).expect("a hard link");
    symlink("../big", folder.path("from/sub/link")).expect("a link");
    let mut sparse = File::create(folder.path("from/sparse")).expect("a file");
    sparse.seek(SeekFrom::Start(20_000_000)).expect("a hole");
    sparse.write_all(b"end").expect("data");
    let _socket = UnixListener::bind(folder.path("from/socket")).expect("a socket");
    let out = agent.call(json!({"op": "tar_out", "path": folder.path("from"), "name": "."}));
    assert_eq!(out.result["ok"]["entries"], 6, "{}", out.result);
    assert!(out.out.len() < 1_000_000, "the hole is not stored");
    let back = agent.call_with(json!({"op": "tar_in", "path": folder.path("to")}), &out.out);
    assert_eq!(back.result, json!({"ok": {"entries": 6, "bytes": 20_000_003 + big.len() + 4}}));
    let metadata = fs::metadata(folder.path("to/big")).expect("the file");
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o750, 2));
    assert_eq!(metadata.mtime(), fs::metadata(folder.path("from/big")).expect("the file").mtime());
    assert!(fs::read(folder.path("to/sub/same")).expect("the link") == big);
    assert_eq!(fs::read_link(folder.path("to/sub/link")).expect("the link").to_str(), Some("../big"));
    assert_eq!(fs::read(folder.path(&format!("to/sub/{long}"))).expect("the file"), b"long");
    let sparse = fs::metadata(folder.path("to/sparse")).expect("the file");
    assert!(sparse.len() == 20_000_003 && sparse.blocks() < 100);
    assert!(!fs::exists(folder.path("to/socket")).expect("a look"));
}

/// An archive of entries: name, type, and link target or contents.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(*kind);
        // By hand, because the crate refuses names that only an attacker would write.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        let contents = if kind.is_file() { text.as_bytes() } else { b"" };
        if !kind.is_file() {
            header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, contents).expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

#[test]
fn hostile_archives_do_not_leave_their_folder() {
    use EntryType::{Link, Regular, Symlink};
    let (mut agent, folder) = (Agent::start(), Folder::new());
    let inside = folder.path("in");
    fs::write(folder.path("secret"), "secret").expect("a file");
    let outside = folder.path("");
    let mut unpack = |entries: &[(&str, EntryType, &str)]| {
        let ended = agent.call_with(json!({"op": "tar_in", "path": inside}), &archive(entries));
        code(&ended).to_string()
    };
    assert_eq!(unpack(&[("../evil", Regular, "x")]), "EINVAL");
    assert_eq!(unpack(&[("a/../../evil", Regular, "x")]), "EINVAL");
    assert_eq!(unpack(&[("absolute", Symlink, &outside), ("absolute/evil", Regular, "x")]), "EXDEV");
    assert_eq!(unpack(&[("relative", Symlink, ".."), ("relative/evil", Regular, "x")]), "EXDEV");
    assert_eq!(unpack(&[("chain", Symlink, "relative"), ("chain/evil", Regular, "x")]), "EXDEV");
    assert_eq!(unpack(&[("hard", Link, "../secret")]), "EINVAL");
    assert_eq!(unpack(&[("hard", Link, "relative/secret")]), "EXDEV");
    assert_eq!(unpack(&[("folder", Symlink, ".."), ("folder/evil/", EntryType::Directory, "")]), "EXDEV");
    // A link as last name is replaced, not written through; an absolute name is taken as relative.
    assert_eq!(unpack(&[("file", Symlink, "../secret"), ("file", Regular, "x")]), "no error");
    assert_eq!(unpack(&[("/abs/file", Regular, "x")]), "no error");
    assert_eq!(fs::read_to_string(folder.path("secret")).expect("the file"), "secret");
    assert!(fs::exists(folder.path("in/abs/file")).expect("a look"));
    let names: Vec<_> = fs::read_dir(&folder.0).expect("the folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn damaged_archives_are_errors() {
    let (mut agent, folder) = (Agent::start(), Folder::new());
    let request = json!({"op": "tar_in", "path": folder.path("in")});
    assert!(agent.call_with(request.clone(), &noise(10_000)).result.get("error").is_some());
    let whole = archive(&[("file", EntryType::Regular, &"x".repeat(3000))]);
    assert!(agent.call_with(request, &whole[..2000]).result.get("error").is_some());
}

#[test]
fn a_dialed_connection_carries_both_ways_and_half_closes() {
    let mut agent = Agent::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let peer = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut received = Vec::new();
        socket.read_to_end(&mut received).expect("all up to the half-close");
        socket.write_all(&received).expect("the peer reads");
    });
    let stream = agent.open(&json!({"op": "dial", "port": port}));
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    let input = noise(1_000_000);
    let ended = agent.finish(stream, &input);
    assert!(ended.out == input);
    assert_eq!(ended.result, json!({"ok": {}}));
    peer.join().expect("the peer");
    assert_eq!(code(&agent.call(json!({"op": "dial", "port": port}))), "ECONNREFUSED");
    assert_eq!(code(&agent.call(json!({"op": "dial", "port": 1, "host": "example.com"}))), "EINVAL");
}

#[test]
fn a_peer_that_ends_first_is_told() {
    let (mut agent, folder) = (Agent::start(), Folder::new());
    let listener = UnixListener::bind(folder.path("socket")).expect("a listener");
    let stream = agent.open(&json!({"op": "dial", "unix": folder.path("socket")}));
    let (mut socket, _) = listener.accept().expect("a connection");
    socket.write_all(b"bye").expect("the agent reads");
    drop(socket);
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    assert_eq!(agent.wait_for(|frame| frame.stream == stream && frame.kind == DATA).payload, b"bye");
    agent.wait_for(|frame| frame.stream == stream && frame.kind == END);
    assert_eq!(agent.finish(stream, b"").result, json!({"ok": {}}));
}

#[test]
fn listeners_name_their_process() {
    let mut agent = Agent::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let found = agent.call(json!({"op": "listeners"})).result;
    let listeners = found["ok"]["listeners"].as_array().expect("a list");
    let ours = listeners.iter().find(|found| found["port"] == port).expect("our listener");
    assert_eq!((&ours["address"], &ours["pid"]), (&json!("127.0.0.1"), &json!(std::process::id())));
}
