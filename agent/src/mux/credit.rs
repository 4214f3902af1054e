//! Flow control of one stream: how much each side may still send.

/// DATA bytes each side may send on a stream before it needs a CREDIT.
pub const WINDOW: u32 = 262_144;
/// Least window that a request may ask for: a quarter of it is still worth a frame.
pub const WINDOW_MIN: u32 = 4 * RUNT;
/// Less credit than this waits for the next grant: the host then holds almost a whole window and must grant at least a
/// quarter of it as it consumes, and waiting keeps the window's odd rest from becoming tiny frames.
const RUNT: u32 = 4096;

/// What we may send.
pub struct SendCredit(u32);

impl SendCredit {
    /// `window`: what may be sent before the first grant, in bytes.
    pub fn new(window: u32) -> SendCredit {
        SendCredit(window)
    }

    /// Bytes worth sending now.
    pub fn available(&self) -> usize {
        if self.0 < RUNT { 0 } else { self.0 as usize }
    }

    pub fn spend(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes as u32);
    }

    pub fn grant(&mut self, bytes: u32) {
        self.0 = self.0.saturating_add(bytes);
    }
}

/// What the host may send.
pub struct ReceiveWindow {
    /// Bytes that are granted back at once.
    step: u32,
    /// Bytes the host may still send.
    left: u32,
    /// Bytes our consumer took that were not granted back.
    taken: u32,
}

impl ReceiveWindow {
    /// `window`: what the host may send before the first grant, in bytes.
    pub fn new(window: u32) -> ReceiveWindow {
        ReceiveWindow { step: window / 4, left: window, taken: 0 }
    }

    /// False when the host sends more than it was granted.
    #[must_use]
    pub fn accept(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u32;
        if bytes > self.left {
            return false;
        }
        self.left -= bytes;
        true
    }

    /// The consumer took `bytes`; the answer is how much to grant, once that is worth a frame.
    pub fn take(&mut self, bytes: usize) -> Option<u32> {
        self.taken += bytes as u32;
        if self.taken < self.step {
            return None;
        }
        let grant = std::mem::take(&mut self.taken);
        self.left += grant;
        Some(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u32 = WINDOW / 4;

    #[test]
    fn sender_stops_at_the_window_and_resumes_on_a_grant() {
        let mut credit = SendCredit::new(WINDOW);
        credit.spend(WINDOW as usize - 100);
        assert_eq!(credit.available(), 0);
        credit.grant(STEP);
        assert_eq!(credit.available(), STEP as usize + 100);
        credit.grant(u32::MAX);
        assert_eq!(credit.available(), u32::MAX as usize);
    }

    #[test]
    fn receiver_refuses_what_was_not_granted() {
        let mut window = ReceiveWindow::new(WINDOW);
        assert!(window.accept(WINDOW as usize));
        assert!(!window.accept(1));
        assert_eq!(window.take(STEP as usize - 1), None);
        assert_eq!(window.take(1), Some(STEP));
        assert!(window.accept(STEP as usize));
        assert!(!window.accept(1));
    }
}
