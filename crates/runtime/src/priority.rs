//! Priority: how far this process steps back behind others of its machine.
//!
//! Promises: every thread steps back, and with it those it starts later; a process that was started further back stays
//! there.
//! Never: steps forward, which the system would refuse anyway.

use std::io;

/// The lowest priority there is, as `nice` counts; 0 is that of an ordinary process.
pub const LOWEST: u8 = 19;

/// Steps back to that priority.
///
/// # Errors
/// Where the system refuses; the threads that were reached before have stepped back.
#[cfg(target_os = "linux")]
pub fn step_back(nice: u8) -> io::Result<()> {
    // Linux counts it for each thread.
    for entry in std::fs::read_dir("/proc/self/task")? {
        let name = entry?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok());
        if let Some(thread) = thread.and_then(rustix::process::Pid::from_raw) {
            match lower(Some(thread), nice) {
                // It ended meanwhile.
                Err(rustix::io::Errno::SRCH) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// Steps back to that priority.
///
/// # Errors
/// Where the system refuses.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn step_back(nice: u8) -> io::Result<()> {
    lower(None, nice).map_err(io::Error::from)
}

/// Does nothing: there is no such thing here.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn step_back(_: u8) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn lower(of: Option<rustix::process::Pid>, nice: u8) -> rustix::io::Result<()> {
    let nice = i32::from(nice.min(LOWEST));
    if rustix::process::getpriority_process(of)? >= nice {
        return Ok(());
    }
    rustix::process::setpriority_process(of, nice)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    /// The nice value of the thread that asks.
    fn own() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        after_name.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    // One test, since each changes the process that all of them share.
    #[test]
    fn all_threads_step_back_and_what_they_start_and_none_comes_forward() {
        let (asks, asked) = mpsc::channel::<()>();
        let (tells, told) = mpsc::channel();
        let other = thread::spawn(move || {
            for () in asked {
                let child = thread::spawn(own).join().unwrap();
                tells.send((own(), child)).unwrap();
            }
        });
        let begun = own();
        step_back(u8::try_from(begun.max(0)).unwrap()).unwrap();
        assert_eq!(own(), begun, "where it is already");
        for (nice, stands) in [(18, 18), (3, 18), (200, 19)] {
            step_back(nice).unwrap();
            asks.send(()).unwrap();
            let all = [own(), told.recv().unwrap().0];
            assert_eq!(all.map(|own| own.max(begun)), [stands.max(begun); 2]);
        }
        asks.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), (19, 19), "what a thread starts");
        drop(asks);
        other.join().unwrap();
    }
}
