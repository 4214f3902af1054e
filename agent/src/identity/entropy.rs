//! Fresh randomness from the host: a restored guest has the generator of its template.

use crate::failure::{Failure, on};
use crate::sys::check;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

/// `_IOW('R', 0x03, int[2])`
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
/// `_IO('R', 0x07)`: makes the generator use what was added at once.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
/// Bytes taken at most; more adds nothing.
const MAX: usize = 512;

/// Mirrors the kernel's `struct rand_pool_info`.
#[repr(C)]
struct PoolInfo {
    /// Bits.
    entropy_count: libc::c_int,
    /// Bytes.
    buf_size: libc::c_int,
    buf: [u8; MAX],
}

pub fn add(base64: &str) -> Result<(), Failure> {
    let bytes = decode(base64).ok_or_else(|| Failure::new("EINVAL", "entropy is not base64"))?;
    let count = bytes.len().min(MAX);
    let mut pool = PoolInfo { entropy_count: count as i32 * 8, buf_size: count as i32, buf: [0; MAX] };
    pool.buf[..count].copy_from_slice(&bytes[..count]);
    let device = device()?;
    // SAFETY: the structure has `buf_size` bytes and outlives the call.
    unsafe {
        check(libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &pool)).map_err(on("add entropy"))?;
        check(libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG)).map_err(on("reseed"))?;
    }
    Ok(())
}

/// Stays open: a clone of this guest need not look for it.
fn device() -> Result<&'static File, Failure> {
    static DEVICE: OnceLock<File> = OnceLock::new();
    if let Some(device) = DEVICE.get() {
        return Ok(device);
    }
    let device = OpenOptions::new().write(true).open("/dev/urandom").map_err(on("/dev/urandom"))?;
    Ok(DEVICE.get_or_init(|| device))
}

/// Standard base64, padded or not.
fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits: u32 = 0;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let whole = group.len() * 6 / 8;
        if whole == 0 {
            return None;
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend(&bits.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn base64_of_rfc_4648() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar"), ("Zm8", "fo")]
        {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("+/8="), Some(vec![0xfb, 0xff]));
        for text in ["Z", "Zm9vY", "Zm 9", "Zm9v\n", "é==="] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
