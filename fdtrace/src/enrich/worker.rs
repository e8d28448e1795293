//! Work that takes milliseconds, on a thread of its own: nobody waits for it who does not want to.

use std::{io, thread};

use tokio::sync::oneshot;

/// Nothing here keeps anything large on its stack.
const STACK: usize = 256 * 1024;

/// An answer that is being worked out. When it is dropped, the work stops soon.
#[derive(Debug)]
pub struct Worker<T>(oneshot::Receiver<io::Result<T>>);

/// Starts `work` on a thread, which it may take to other namespaces: the thread ends with it.
///
/// `work` is given what says that nobody waits any more.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce(&dyn Fn() -> bool) -> io::Result<T> + Send + 'static,
) -> io::Result<Worker<T>> {
    let (sender, answer) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        let answer = work(&|| sender.is_closed());
        drop(sender.send(answer));
    })?;
    Ok(Worker(answer))
}

impl<T> Worker<T> {
    /// Waits for the answer without blocking anybody else.
    pub async fn answer(self) -> io::Result<T> {
        self.0.await.unwrap_or_else(|_| panicked())
    }

    /// Blocks until the answer is there: for commands, outside of an event loop.
    pub fn wait(self) -> io::Result<T> {
        self.0.blocking_recv().unwrap_or_else(|_| panicked())
    }
}

fn panicked<T>() -> io::Result<T> {
    Err(io::Error::other("the thread panicked"))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn an_answer_an_error_and_a_panic() {
        assert_eq!(spawn("test", |_| Ok(7)).unwrap().wait().unwrap(), 7);
        let error = spawn("test", |_| -> io::Result<()> { Err(io::ErrorKind::NotFound.into()) });
        assert_eq!(error.unwrap().wait().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(
            spawn("test", |_| -> io::Result<()> { panic!("on purpose") }).unwrap().wait().is_err()
        );
    }

    #[test]
    fn work_that_nobody_waits_for_is_told_so() {
        let (told, was_told) = mpsc::channel();
        let worker = spawn("test", move |is_cancelled| {
            let began = Instant::now();
            while !is_cancelled() && began.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            told.send(is_cancelled()).unwrap();
            Ok(())
        });
        drop(worker.unwrap());
        assert!(was_told.recv().unwrap());
    }
}
