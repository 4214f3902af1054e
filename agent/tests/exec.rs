//! Programs run by the real agent.

mod client;

use client::{Agent, CLOSE, CONTROL, CREDIT, DATA, OPENED, code, noise};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn status_output_and_errors_are_kept_apart() {
    let mut agent = Agent::start();
    let ended = agent.exec(&["sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((ended.out.as_slice(), ended.err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(ended.result, json!({"exit": 42}));
    assert_eq!(agent.exec(&["sh", "-c", "kill -9 $$"]).result, json!({"signal": 9}));
}

#[test]
fn arguments_are_passed_as_given() {
    let mut agent = Agent::start();
    let ended = agent.exec(&["printf", "%s|", "a b", "$HOME", "", "'\"", "*"]);
    assert_eq!(ended.out, b"a b|$HOME||'\"|*|");
}

#[test]
fn what_cannot_be_started_is_named() {
    let mut agent = Agent::start();
    assert_eq!(code(&agent.exec(&["no-such-program"])), "ENOENT");
    assert_eq!(code(&agent.exec(&["/etc"])), "EISDIR");
    assert_eq!(code(&agent.exec(&["/etc/passwd"])), "EACCES");
    assert_eq!(code(&agent.exec(&[])), "EINVAL");
    assert_eq!(code(&agent.exec(&["a\0b"])), "EINVAL");
    let ended = agent.call(json!({"op": "exec", "argv": ["true"], "cwd": "/no/such/folder"}));
    assert_eq!(code(&ended), "ECWD");
    assert!(ended.result["error"]["message"].as_str().expect("a message").contains("/no/such/folder"));
    let ended = agent.call(json!({"op": "exec", "argv": ["true"], "user": "no-such-user"}));
    assert_eq!(code(&ended), "EINVAL");
}

#[test]
fn environment_and_folder_are_those_of_the_request() {
    let mut agent = Agent::start();
    let argv = ["sh", "-c", "echo $A; pwd; echo $PATH"];
    let ended =
        agent.call(json!({"op": "exec", "argv": argv, "cwd": "/usr", "env": {"A": "b c", "PATH": "/bin:/usr/bin"}}));
    assert_eq!(ended.out, b"b c\n/usr\n/bin:/usr/bin\n");
}

#[test]
fn programs_inherit_no_descriptor_and_no_signal_setting_of_the_agent() {
    let argv = ["sh", "-c", "ls /proc/self/fd; grep -E 'SigBlk|SigIgn' /proc/self/status"];
    let through_agent = Agent::start().exec(&argv).out;
    let direct = Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::piped()).output().expect("sh").stdout;
    assert_eq!(String::from_utf8_lossy(&through_agent), String::from_utf8_lossy(&direct));
}

#[test]
fn binary_input_comes_back_unchanged() {
    let mut agent = Agent::start();
    let input = noise(5_000_000);
    let ended = agent.call_with(json!({"op": "exec", "argv": ["cat"]}), &input);
    assert!(ended.out == input);
    assert_eq!(ended.result, json!({"exit": 0}));
}

#[test]
fn a_program_that_does_not_read_does_not_stop_its_stream() {
    let mut agent = Agent::start();
    let ended = agent.call_with(json!({"op": "exec", "argv": ["sh", "-c", "exec <&-; echo done"]}), &noise(2_000_000));
    assert_eq!((ended.out.as_slice(), ended.result), (&b"done\n"[..], json!({"exit": 0})));
}

#[test]
fn a_background_child_does_not_delay_the_end() {
    let mut agent = Agent::start();
    let start = Instant::now();
    let ended = agent.exec(&["sh", "-c", "echo first; sleep 20 & exit 3"]);
    assert_eq!((ended.out.as_slice(), ended.result), (&b"first\n"[..], json!({"exit": 3})));
    let ended = agent.exec(&["sh", "-c", "timeout 20 yes & sleep 0.1; exit 4"]);
    assert_eq!(ended.result, json!({"exit": 4}));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn output_waits_for_credit_and_is_complete_after_the_exit() {
    let mut agent = Agent::start();
    let stream = agent.open(&json!({"op": "exec", "argv": ["head", "-c", "300000", "/dev/zero"]}));
    let mut received = 0;
    // Nothing is granted: the window is filled up to its odd rest, and not a byte more.
    while received < client::WINDOW - 4096 {
        received += agent.wait_for(|frame| frame.stream == stream && frame.kind == DATA).payload.len();
    }
    assert!(received <= client::WINDOW);
    agent.send(CREDIT, 0, stream, &(received as u32).to_le_bytes());
    let ended = agent.finish(stream, b"");
    assert_eq!((received + ended.out.len(), ended.result), (300_000, json!({"exit": 0})));
}

#[test]
fn signals_and_aborts_reach_the_group() {
    let mut agent = Agent::start();
    let stream = agent.open(&json!({"op": "exec", "argv": ["sh", "-c", "sleep 60; true"]}));
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    agent.send(CONTROL, 0, stream, br#"{"signal":15}"#);
    assert_eq!(agent.finish(stream, b"").result, json!({"signal": 15}));
    let stream = agent.open(&json!({"op": "exec", "argv": ["sh", "-c", "sleep 60; true"]}));
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    agent.send(CLOSE, 0, stream, b"");
    assert_eq!(agent.wait_for(|frame| frame.stream == stream && frame.kind == CLOSE).json(), json!({"signal": 1}));
}

#[test]
fn a_terminal_has_size_type_and_an_end_of_input() {
    let mut agent = Agent::start();
    let pty = json!({"cols": 81, "rows": 23, "term": "vt100"});
    let ended =
        agent.call(json!({"op": "exec", "argv": ["sh", "-c", "stty size; echo $TERM; test -t 2 && cat"], "pty": pty}));
    assert_eq!((ended.out.as_slice(), ended.result), (&b"23 81\r\nvt100\r\n"[..], json!({"exit": 0})));
    // The last output is there even though nobody holds the terminal any more.
    let ended = agent.call(json!({"op": "exec", "argv": ["seq", "20000"], "pty": pty}));
    let expected: String = (1..=20_000).map(|number| format!("{number}\r\n")).collect();
    assert!(ended.out == expected.as_bytes());
    let stream = agent.open(&json!({"op": "exec", "argv": ["sh", "-c", "read x; stty size"], "pty": pty}));
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    agent.send(CONTROL, 0, stream, br#"{"resize":{"cols":100,"rows":30}}"#);
    assert!(agent.finish(stream, b"\r").out.ends_with(b"30 100\r\n"));
}

#[test]
fn two_hundred_at_once() {
    let mut agent = Agent::start();
    let streams: Vec<u32> = (0..200)
        .map(|number| agent.open(&json!({"op": "exec", "argv": ["sh", "-c", format!("cat; echo {number}")]})))
        .collect();
    for (number, stream) in streams.into_iter().enumerate() {
        let ended = agent.finish(stream, b"in\n");
        assert_eq!(ended.out, format!("in\n{number}\n").as_bytes());
        assert_eq!(ended.result, json!({"exit": 0}));
    }
}
