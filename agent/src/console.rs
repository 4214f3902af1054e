//! Words for the console: the agent has no other place for them.

use std::fs::OpenOptions;
use std::io::Write;

/// Writes a line to the kernel's log, which also reaches the console where the log level lets it.
pub fn say(message: &str) {
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // One write is one record. Nobody can be told that telling failed.
        let _ = log.write_all(format!("<4>banger-agent: {message}\n").as_bytes());
    }
}

/// Says why the guest cannot go on, on the console itself: its reader must see it whatever the log level.
pub fn say_fatal(message: &str) {
    let line = format!("\nbanger-agent: fatal: {message}\n");
    for path in ["/dev/console", "/dev/ttyS0"] {
        if let Ok(mut console) = OpenOptions::new().write(true).open(path)
            && console.write_all(line.as_bytes()).is_ok()
        {
            return;
        }
    }
    eprint!("{line}");
}
