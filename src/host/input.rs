//! Files that the user names: a profile, a snapshot, waivers. They may be pipes, and they must be text.

use std::io::{self, Read as _};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{Host, MAX_FILE_BYTES, ReadError};

/// Reads a file of at most [`MAX_FILE_BYTES`] that must be UTF-8: a replaced byte could change what is asked. A pipe
/// (`--snapshot <(ssh host preflight facts)`) is read until its writers are gone; one that nobody writes to is empty at
/// once, so that nothing hangs.
pub fn read(path: &Path) -> Result<String, ReadError> {
    let wrap = |source| ReadError { path: path.to_owned(), source };
    // Opened without blocking, read with: open(2) would wait for a first writer for ever.
    let file = Host::live().open(path).map_err(wrap)?;
    let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(|errno| wrap(errno.into()))?;
    let blocking = OFlag::from_bits_retain(flags) - OFlag::O_NONBLOCK;
    fcntl(&file, FcntlArg::F_SETFL(blocking)).map_err(|errno| wrap(errno.into()))?;
    text(file).map_err(wrap)
}

/// Standard input, under the same rules.
pub fn standard() -> io::Result<String> {
    text(io::stdin().lock())
}

fn text(from: impl io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    decode(bytes)
}

/// The bytes as text, or the line with the first byte that is none.
pub fn decode(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].split(|byte| *byte == b'\n').count();
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_bad_byte_is_named() {
        assert_eq!(decode(b"a\nb\n".to_vec()).unwrap(), "a\nb\n");
        assert_eq!(decode(b"a\n\xff".to_vec()).unwrap_err().to_string(), "line 2 is not UTF-8");
    }
}
