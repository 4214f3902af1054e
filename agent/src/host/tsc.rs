//! The rate of the time-stamp counter, measured on the host: QEMU's TCG hands the host's counter to the guest, whose kernel cannot calibrate it
//! against emulated timers on a busy host (see `tsc_early_khz` in docs/vmm.md).

use std::arch::x86_64::_rdtsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long enough that the error of the two clock readings, about 100 ns, is one part in a million.
const SPAN: Duration = Duration::from_millis(100);

/// In kHz.
pub fn frequency() -> u64 {
    let (start, first) = (Instant::now(), counter());
    sleep(SPAN);
    let (elapsed, last) = (start.elapsed(), counter());
    khz(last.wrapping_sub(first), elapsed)
}

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user programs run it.
    unsafe { _rdtsc() }
}

fn khz(ticks: u64, elapsed: Duration) -> u64 {
    (u128::from(ticks) * 1_000_000 / elapsed.as_nanos().max(1)) as u64
}

#[cfg(test)]
mod tests {
    use super::{frequency, khz};
    use std::time::Duration;

    #[test]
    fn ticks_over_time_are_a_rate_in_khz() {
        assert_eq!(khz(260_000_000, Duration::from_millis(100)), 2_600_000);
    }

    #[test]
    fn two_measurements_agree_to_a_hundredth_of_a_percent() {
        let (one, two) = (frequency(), frequency());
        assert!(one.abs_diff(two) * 10_000 < one, "{one} {two}");
        assert!((500_000..10_000_000).contains(&one), "{one}");
    }
}
