//! The connection itself: greetings, breaks, and hosts that misbehave.

mod client;

use client::{Agent, CLOSE, CONTROL, CREDIT, DATA, END, EVENT, OPEN, OPENED, PAYLOAD_MAX, WINDOW, code, noise};
use serde_json::json;
use std::io::Write;

#[test]
fn hello_says_who_answers() {
    let mut agent = Agent::start();
    let hello = agent.sync();
    assert_eq!((&hello["version"], &hello["phase"]), (&json!(1), &json!("configure")));
    assert_eq!(hello["agent"], env!("CARGO_PKG_VERSION"));
    assert!(hello["boot_id"].as_str().is_some_and(|id| id.len() == 36));
}

#[test]
fn a_new_epoch_ends_the_old_one_in_mid_frame() {
    let mut agent = Agent::start();
    for cut in [1, 5, 11, 12, 13, 4000] {
        let busy = agent.open(&json!({"op": "exec", "argv": ["sh", "-c", "exec cat /dev/zero"]}));
        let waiting = agent.open(&json!({"op": "exec", "argv": ["cat"]}));
        let opened = agent.wait_for(|frame| frame.stream == waiting && frame.kind == OPENED);
        let pid = opened.json()["pid"].as_u64().expect("a pid");
        agent.wait_for(|frame| frame.stream == busy && frame.kind == DATA);
        let mut frame = vec![DATA, 0, 0, 0];
        frame.extend(waiting.to_le_bytes());
        frame.extend(5000_u32.to_le_bytes());
        frame.resize(5012, 7);
        agent.socket.write_all(&frame[..cut]).expect("the agent reads");
        agent.sync();
        assert_eq!(agent.exec(&["echo", "again"]).out, b"again\n", "cut at {cut}");
        let gone = agent.exec(&["sh", "-c", &format!("sleep 0.1; kill -0 {pid} 2>/dev/null || echo gone")]);
        assert_eq!(gone.out, b"gone\n");
    }
}

#[test]
fn frames_for_streams_that_do_not_exist_are_ignored() {
    let mut agent = Agent::start();
    for kind in [OPENED, DATA, END, CREDIT, CONTROL, CLOSE, EVENT] {
        agent.send(kind, 0, 4_000_000, b"");
    }
    agent.send(OPEN, 0, 0, b"{}");
    assert_eq!(agent.exec(&["echo", "fine"]).out, b"fine\n");
}

#[test]
fn requests_that_are_not_understood_are_answered() {
    let mut agent = Agent::start();
    for request in [json!({"op": "nonsense"}), json!({}), json!([1]), json!({"op": "exec", "argv": "ls"})] {
        assert_eq!(code(&agent.call(request)), "EPROTO");
    }
    agent.send(OPEN, 0, 77, b"\xff{");
    let closed = agent.wait_for(|frame| frame.stream == 77 && frame.kind == CLOSE);
    assert_eq!(closed.json()["error"]["code"], "EPROTO");
    let long = json!({"op": "exec", "argv": ["sh", "-c", "echo ${#LONG}"], "env": {"LONG": "x".repeat(100_000)}});
    assert_eq!(agent.call(long).out, b"100000\n");
}

#[test]
fn a_host_that_breaks_the_protocol_is_told_and_can_start_anew() {
    let mut agent = Agent::start();
    let stream = agent.open(&json!({"op": "exec", "argv": ["sleep", "60"]}));
    for _ in 0..=WINDOW / PAYLOAD_MAX {
        agent.send(DATA, 0, stream, &[0; PAYLOAD_MAX]);
    }
    let event = agent.wait_for(|frame| frame.kind == EVENT).json();
    assert_eq!(event["event"], "protocol_error");
    agent.sync();
    assert_eq!(agent.exec(&["echo", "anew"]).out, b"anew\n");
    agent.socket.write_all(&noise(200_000)).expect("the agent reads");
    agent.sync();
    assert_eq!(agent.exec(&["echo", "anew"]).out, b"anew\n");
}

#[test]
fn nothing_is_answered_before_the_first_greeting_of_an_epoch() {
    let mut agent = Agent::start();
    agent.send(OPEN, 0, 900, br#"{"op":"metrics"}"#);
    assert!(agent.wait_for(|frame| frame.stream == 900).json()["ok"]["uptime"].is_number());
    let mut stale = vec![OPEN, 0, 99, 99];
    stale.extend(901_u32.to_le_bytes());
    stale.extend(16_u32.to_le_bytes());
    stale.extend(br#"{"op":"metrics"}"#);
    agent.socket.write_all(&stale).expect("the agent reads");
    agent.send(OPEN, 0, 902, br#"{"op":"metrics"}"#);
    assert_eq!(agent.wait_for(|frame| frame.stream > 900).stream, 902);
}

#[test]
fn a_guest_that_could_not_become_who_it_is_to_be_does_nothing_else() {
    let mut agent = Agent::start();
    let configured = agent.open(&json!({"op": "configure", "boot_id": "not one"}));
    let behind = agent.open(&json!({"op": "exec", "argv": ["true"]}));
    assert_eq!(code(&agent.finish(configured, b"")), "EINVAL");
    assert_eq!(code(&agent.finish(behind, b"")), "EAGAIN");
    assert_eq!(code(&agent.call(json!({"op": "stat", "path": "/"}))), "EAGAIN");
}
