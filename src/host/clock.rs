//! The kernel's opinion of its own clock.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

/// The kernel's bound on the error of the clock, `maxerror` of adjtimex(2). It grows by 500 ppm while nothing
/// disciplines the clock, up to 16 s. Needs no privilege, whatever daemon keeps the time.
pub fn max_error() -> io::Result<Duration> {
    #[expect(unsafe_code, reason = "no library in use wraps adjtimex(2)")]
    // SAFETY: `timex` is plain integers, for which all zeros is a valid value; `modes` = 0 asks the kernel to change
    // nothing and to fill the struct, which is ours and lives through the call.
    let (status, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    // The positive values are clock states (TIME_ERROR is the usual one without a reference), not errors.
    Errno::result(status)?;
    let micros = u64::try_from(timex.maxerror).map_err(|_| io::Error::other("the kernel gives a negative maxerror"))?;
    Ok(Duration::from_micros(micros))
}
