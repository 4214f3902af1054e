//! Requests as they come from the host: see `docs/guest-protocol.md`.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    Configure(Box<Configure>),
    Hold(Hold),
    Release,
    Exec(Exec),
    Read(Read),
    Write(Write),
    Stat(Stat),
    List(List),
    TarOut(TarOut),
    TarIn(TarIn),
    Dial(Dial),
    Accept(Accept),
    Listeners(Listeners),
    Whose(Whose),
    Metrics,
    Clock(Clock),
    Sync,
    Grow(Grow),
    Shutdown(Shutdown),
}

#[derive(Deserialize, Default)]
pub struct Configure {
    pub hostname: Option<String>,
    pub machine_id: Option<String>,
    pub boot_id: Option<String>,
    pub network: Option<Network>,
    pub ssh: Option<Ssh>,
    pub clock_ns: Option<String>,
    /// Base64.
    pub entropy: Option<String>,
    pub env: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub start_init: bool,
    /// After `hold`: the files of the identity are written when somebody opens one, or a moment later.
    #[serde(default)]
    pub lazy: bool,
    /// Guests that share a CPU of the host as they start: a clone's services and files wait so many times longer.
    pub crowd: Option<u32>,
}

#[derive(Deserialize)]
pub struct Hold {
    /// After so long without a `configure` it ends as by `release`.
    pub limit_ms: Option<u64>,
}

#[derive(Deserialize, Clone, PartialEq)]
pub struct Network {
    pub mac: Option<String>,
    pub address: Option<String>,
    pub gateway: Option<String>,
    pub address6: Option<String>,
    pub gateway6: Option<String>,
    /// Bytes.
    pub mtu: Option<u32>,
    pub dns: Option<Vec<String>>,
    #[serde(default)]
    pub hosts: Vec<Host>,
}

#[derive(Deserialize, Clone, PartialEq)]
pub struct Host {
    pub address: String,
    pub names: Vec<String>,
}

#[derive(Deserialize)]
pub struct Ssh {
    pub host_key: String,
    pub host_key_public: String,
    pub authorized_keys: String,
}

#[derive(Deserialize)]
pub struct Exec {
    pub argv: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub cwd: Option<String>,
    pub user: Option<String>,
    pub pty: Option<Pty>,
}

#[derive(Deserialize)]
pub struct Pty {
    pub cols: u16,
    pub rows: u16,
    pub term: Option<String>,
}

#[derive(Deserialize)]
pub struct Read {
    pub path: String,
    #[serde(default)]
    pub offset: u64,
    pub length: Option<u64>,
}

#[derive(Deserialize)]
pub struct Write {
    pub path: String,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    #[serde(default)]
    pub parents: bool,
    /// Bytes the host is going to send; another number publishes nothing.
    pub size: Option<u64>,
}

#[derive(Deserialize)]
pub struct Stat {
    pub path: String,
    #[serde(default = "yes")]
    pub follow: bool,
}

#[derive(Deserialize)]
pub struct List {
    pub path: String,
}

#[derive(Deserialize)]
pub struct TarOut {
    pub path: String,
    pub name: Option<String>,
}

#[derive(Deserialize)]
pub struct TarIn {
    pub path: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Deserialize)]
pub struct Dial {
    pub port: Option<u16>,
    pub host: Option<String>,
    pub unix: Option<String>,
    /// Datagrams, each behind its length.
    #[serde(default)]
    pub udp: bool,
    /// Bytes each side may send before the first grant; the usual window where it is left out.
    pub window: Option<u32>,
}

#[derive(Deserialize)]
pub struct Accept {
    /// Of the guest's 127.0.0.1.
    pub port: u16,
    /// As of `Dial`.
    pub window: Option<u32>,
    /// Closes the port.
    #[serde(default)]
    pub stop: bool,
}

#[derive(Deserialize)]
pub struct Listeners {
    /// Goes on, with a line for each change.
    #[serde(default)]
    pub watch: bool,
    /// Sockets that wait for datagrams too.
    #[serde(default)]
    pub udp: bool,
}

#[derive(Deserialize)]
pub struct Whose {
    pub proto: Proto,
    /// Of the socket itself.
    pub port: u16,
    /// Of what it is connected to, where it is.
    pub to: u16,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
}

#[derive(Deserialize)]
pub struct Clock {
    pub clock_ns: String,
}

#[derive(Deserialize)]
pub struct Grow {
    /// Bytes; the device is waited for until it has so many.
    pub size: Option<u64>,
}

#[derive(Deserialize)]
pub struct Shutdown {
    pub mode: ShutdownMode,
    pub grace_ms: Option<u64>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownMode {
    Poweroff,
    Reboot,
}

/// CONTROL frames.
#[derive(Deserialize)]
pub struct Control {
    pub resize: Option<Resize>,
    pub signal: Option<i32>,
}

#[derive(Deserialize)]
pub struct Resize {
    pub cols: u16,
    pub rows: u16,
}

fn yes() -> bool {
    true
}
