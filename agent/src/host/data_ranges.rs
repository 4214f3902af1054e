//! Where a sparse file has data, for whoever copies it without a program of its own each time.

use std::fs::File;
use std::io::{self, Result, Write};
use std::os::fd::AsRawFd;

/// Writes `OFFSET LENGTH` in bytes, a line for each range in their order. Of a file with more ranges than `most`, nothing.
pub fn run(file: &File, most: usize, output: &mut impl Write) -> Result<()> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(from) = seek(file, at, libc::SEEK_DATA)? {
        if ranges.len() == most {
            return Ok(());
        }
        at = seek(file, from, libc::SEEK_HOLE)?.unwrap_or(from);
        ranges.push((from, at - from));
    }
    ranges.iter().try_for_each(|(from, length)| writeln!(output, "{from} {length}"))
}

/// `None` where there is no more of it before the end.
fn seek(file: &File, from: i64, whence: libc::c_int) -> Result<Option<i64>> {
    // SAFETY: no memory is passed.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    if found >= 0 {
        return Ok(Some(found));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    fn told(most: usize) -> String {
        let path = std::env::temp_dir().join(format!("banger-ranges-{}-{most}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
        std::fs::remove_file(&path).expect("removed");
        file.set_len(4 << 20).expect("long");
        for offset in [0, 2 << 20] {
            file.write_all_at(&[1; 8192], offset).expect("written");
        }
        let mut output = Vec::new();
        run(&file, most, &mut output).expect("told");
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn data_and_holes_are_told_apart() {
        assert_eq!(told(2), "0 8192\n2097152 8192\n");
        assert_eq!(told(1), "");
    }
}
