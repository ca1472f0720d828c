//! Prompt: a value typed on a terminal that does not show it.
//!
//! Promises: the terminal is as it was afterwards, also where the person breaks off.
//! Never: echoes; falls back to a terminal that does.

use protocol::{Code, Error, Result};
use secrecy::SecretString;

/// Asks on stderr and reads one line of the terminal at stdin.
///
/// # Errors
/// `BAD_REQUEST` where the person breaks off, or the terminal cannot be kept from showing what is typed.
#[cfg(unix)]
pub(super) fn unseen(question: &str) -> Result<SecretString> {
    use std::io::{self, Read as _, Write as _};

    use protocol::{Coded as _, limits};
    use secrecy::zeroize::Zeroizing;

    let quiet = Quiet::begin()?;
    let _ = write!(io::stderr(), "{question}").and_then(|()| io::stderr().flush());
    let mut value = Zeroizing::new(Vec::new());
    let mut terminal = io::stdin().lock();
    loop {
        let mut byte = [0];
        let read = terminal.read(&mut byte).coded(Code::BadRequest, "cannot read the terminal")?;
        match key(if read == 0 { END } else { byte[0] }) {
            Key::Sign(byte) if value.len() <= limits::SEALED_BYTES => value.push(byte),
            Key::Sign(_) => {}
            Key::Back => back(&mut value),
            Key::Enter => break,
            Key::Leave => {
                return Err(Error::new(Code::BadRequest, "broken off; nothing was sealed"));
            }
        }
    }
    drop(quiet);
    super::secret::typed(&value)
}

/// # Errors
/// `BAD_REQUEST`: this release hides nothing on this system's terminals.
#[cfg(not(unix))]
pub(super) fn unseen(_question: &str) -> Result<SecretString> {
    Err(Error::new(
        Code::BadRequest,
        "give the value on stdin: malote agent secret set NAME < FILE",
    ))
}

/// What a key means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Sign(u8),
    Back,
    Enter,
    Leave,
}

/// End of input, Ctrl-D.
const END: u8 = 4;

const fn key(byte: u8) -> Key {
    match byte {
        b'\r' | b'\n' => Key::Enter,
        8 | 127 => Key::Back,
        // Ctrl-C and Ctrl-D.
        3 | END => Key::Leave,
        other => Key::Sign(other),
    }
}

/// Takes the last character away, all its bytes.
fn back(value: &mut Vec<u8>) {
    while value.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
}

/// A terminal that shows nothing and sends no signal, for as long as this lives.
#[cfg(unix)]
struct Quiet(rustix::termios::Termios);

#[cfg(unix)]
impl Quiet {
    fn begin() -> Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let failed = |cause: rustix::io::Errno| {
            let words =
                "this terminal cannot be kept from showing what is typed; give the value on stdin";
            Error::new(Code::BadRequest, words).because(std::io::Error::from(cause))
        };
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        // Key by key and without signals, so that breaking off goes through `drop`.
        quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Self(before))
    }
}

#[cfg(unix)]
impl Drop for Quiet {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        // An error means that the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
        // The line break that was not echoed.
        crate::out::talk("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_signs_but_those_that_end_take_back_or_leave() {
        assert_eq!([key(b'\r'), key(b'\n')], [Key::Enter; 2]);
        assert_eq!([key(3), key(4)], [Key::Leave; 2]);
        assert_eq!([key(8), key(127)], [Key::Back; 2]);
        assert_eq!([key(b'a'), key(b' ')], [Key::Sign(b'a'), Key::Sign(b' ')]);
        let mut value = "açã".as_bytes().to_vec();
        back(&mut value);
        assert_eq!(value, "aç".as_bytes());
        back(&mut value);
        back(&mut value);
        back(&mut value);
        assert!(value.is_empty());
    }
}
