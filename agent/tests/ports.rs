//! What published ports need: connections that end as their peers end them, datagrams, small windows, and news of listeners.

mod client;

use client::{Agent, CLOSE, DATA, END, OPENED, code, noise};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread::{self, JoinHandle};

fn server<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    (port, thread::spawn(move || serve(listener.accept().expect("a connection").0)))
}

#[test]
fn hello_names_what_the_first_agents_did_not_know() {
    let mut agent = Agent::start();
    assert_eq!(
        agent.sync()["features"],
        json!(["accept", "dial_udp", "dial_window", "hold_limit", "watch_listeners", "whose"])
    );
}

#[test]
fn a_small_window_carries_as_much_and_is_never_overrun() {
    let mut agent = Agent::start();
    let (port, echo) = server(|mut socket| {
        let mut copy = socket.try_clone().expect("a copy");
        std::io::copy(&mut socket, &mut copy).expect("an echo");
    });
    let stream = agent.open(&json!({"op": "dial", "port": port, "window": 16_384}));
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    agent.step = 4096;
    let input = noise(500_000);
    assert!(agent.finish(stream, &input).out == input);
    echo.join().expect("the server");
    // Without a grant no more than the window comes.
    let (port, sender) = server(|mut socket| socket.write_all(&noise(100_000)));
    let stream = agent.open(&json!({"op": "dial", "port": port, "window": 16_384}));
    let mut came = 0;
    while came <= 16_384 - 4096 {
        came += agent.wait_for(|frame| frame.stream == stream && frame.kind == DATA).payload.len();
    }
    assert!(came <= 16_384, "{came}");
    assert_eq!(agent.exec(&["echo", "meanwhile"]).out, b"meanwhile\n");
    agent.send(CLOSE, 0, stream, b"");
    let closed = agent.wait_for(|frame| frame.stream == stream && frame.kind == CLOSE);
    assert_eq!(closed.json()["error"]["code"], "ECANCELED");
    drop(sender.join());
    for window in [0, 16_383, 262_145] {
        assert_eq!(code(&agent.call(json!({"op": "dial", "port": port, "window": window}))), "EINVAL");
    }
}

#[test]
fn a_connection_that_the_host_gives_up_is_reset() {
    let mut agent = Agent::start();
    let (port, peer) = server(|mut socket| socket.read(&mut [0]).map_err(|error| error.kind()));
    let stream = agent.open(&json!({"op": "dial", "port": port}));
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    agent.send(CLOSE, 0, stream, b"");
    assert_eq!(peer.join().expect("the peer"), Err(ErrorKind::ConnectionReset));
}

#[test]
fn an_answer_is_delivered_though_its_sender_takes_no_more() {
    let mut agent = Agent::start();
    // Closed with bytes unread: a reset follows the answer.
    let (port, peer) = server(|mut socket| {
        socket.read_exact(&mut [0; 10]).expect("the beginning");
        socket.write_all(b"too much").expect("an answer");
    });
    let stream = agent.open(&json!({"op": "dial", "port": port}));
    agent.send(DATA, 0, stream, &noise(20_000));
    peer.join().expect("the peer");
    agent.send(DATA, 0, stream, &noise(20_000));
    agent.send(DATA, 0, stream, &noise(20_000));
    let ended = agent.finish(stream, b"");
    assert_eq!(ended.out, b"too much");
    assert!(["ECONNRESET", "EPIPE"].contains(&code(&ended)), "{}", ended.result);
}

fn datagram(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}

#[test]
fn datagrams_keep_their_bounds_both_ways() {
    let mut agent = Agent::start();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = socket.local_addr().expect("its address").port();
    let stream = agent.open(&json!({"op": "dial", "port": port, "udp": true}));
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    let mut buffer = vec![0; 70_000];
    for length in [1, 0, 1400, 32_754, 32_755, 65_507] {
        let sent = noise(length);
        for part in datagram(&sent).chunks(30_000) {
            agent.send(DATA, 0, stream, part);
        }
        let (count, from) = socket.recv_from(&mut buffer).expect("a datagram");
        assert!(buffer[..count] == sent, "{length} bytes out");
        socket.send_to(&sent, from).expect("an answer");
        let mut back = Vec::new();
        while back.len() < 2 + length {
            back.extend(agent.wait_for(|frame| frame.stream == stream && frame.kind == DATA).payload);
        }
        assert!(back == datagram(&sent), "{length} bytes back");
    }
    agent.send(CLOSE, 0, stream, b"");
    assert_eq!(
        agent.wait_for(|frame| frame.stream == stream && frame.kind == CLOSE).json()["error"]["code"],
        "ECANCELED"
    );
}

#[test]
fn a_datagram_that_nobody_takes_is_told() {
    let mut agent = Agent::start();
    let port = UdpSocket::bind("127.0.0.1:0").expect("a socket").local_addr().expect("its address").port();
    let stream = agent.open(&json!({"op": "dial", "port": port, "udp": true}));
    agent.wait_for(|frame| frame.stream == stream && frame.kind == OPENED);
    agent.send(DATA, 0, stream, &datagram(b"anybody?"));
    let closed = agent.wait_for(|frame| frame.stream == stream && frame.kind == CLOSE);
    assert_eq!(closed.json()["error"]["code"], "ECONNREFUSED");
}

#[test]
fn listeners_are_told_as_they_come_and_go() {
    let mut agent = Agent::start();
    let stream = agent.open(&json!({"op": "listeners", "watch": true, "udp": true}));
    let mut text = Vec::new();
    let mut line = |agent: &mut Agent| -> Value {
        while !text.contains(&b'\n') {
            text.extend(agent.wait_for(|frame| frame.stream == stream && frame.kind == DATA).payload);
        }
        let end = text.iter().position(|&byte| byte == b'\n').expect("a whole line");
        let rest = text.split_off(end + 1);
        serde_json::from_slice(&std::mem::replace(&mut text, rest)).expect("JSON")
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let listed = |told: &Value| told["listeners"].as_array().expect("a list").iter().any(|found| found["port"] == port);
    while !listed(&line(&mut agent)) {}
    drop(listener);
    while listed(&line(&mut agent)) {}
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = datagrams.local_addr().expect("its address").port();
    let waits = |told: &Value| {
        let found = told["listeners"].as_array().expect("a list").iter().find(|found| found["port"] == port);
        found.is_some_and(|found| found["proto"] == "udp" && found["pid"] == std::process::id())
    };
    while !waits(&line(&mut agent)) {}
    // One who asks for TCP alone hears of that alone.
    let plain = agent.call(json!({"op": "listeners"}));
    let protocols = plain.result["ok"]["listeners"].as_array().expect("a list");
    assert!(protocols.iter().all(|found| found["proto"] != "udp" && found["proto"] != "udp6"));
    // Connected, it waits for its peer alone.
    datagrams.connect("127.0.0.1:9").expect("a peer");
    while waits(&line(&mut agent)) {}
    agent.send(CLOSE, 0, stream, b"");
    let closed = agent.wait_for(|frame| frame.stream == stream && frame.kind == CLOSE || frame.kind == END);
    assert_eq!(closed.json()["error"]["code"], "ECANCELED");
}
