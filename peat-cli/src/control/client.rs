//! A command's end of the socket.

use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::socket::{self, Stream};
use super::{Greeting, MAX_IN_FLIGHT, Outcome, Request, VERSION, line};
use crate::failure::{Code, Failure};

/// Longest time that a `serve` takes to say the first line. It does so before anything else, so it is stopped or stuck.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a running `serve`.
pub(crate) struct Client {
    requests: BufWriter<Stream>,
    /// Filled by a thread of its own, so that answers never hold up requests.
    answers: Receiver<io::Result<Outcome>>,
}

impl Client {
    /// Connects to the `serve` that runs on `dir`; `None` if none does.
    pub(crate) fn connect(dir: &Path) -> Result<Option<Self>, Failure> {
        Self::connect_within(GREETING_TIMEOUT, dir)
    }

    fn connect_within(timeout: Duration, dir: &Path) -> Result<Option<Self>, Failure> {
        let Some(stream) = socket::connect(dir).map_err(|error| lost(&error))? else {
            return Ok(None);
        };
        stream.set_read_timeout(Some(timeout)).map_err(|error| lost(&error))?;
        let mut from = BufReader::new(stream.try_clone().map_err(|error| lost(&error))?);
        let greeting: Result<Greeting, Failure> = match line::read(&mut from) {
            Ok(Some(greeting)) => greeting,
            // It was about to end and did not take us in: as good as not running.
            Ok(None) => return Ok(None),
            Err(error) => return Err(lost(&error)),
        };
        if greeting?.peat != VERSION {
            return Err(Failure::new(
                Code::Busy,
                "the running `peat serve` is of another version",
                "restart it with this version of peat",
            ));
        }
        // From here on an answer may take as long as the disk or a peer does.
        stream.set_read_timeout(None).map_err(|error| lost(&error))?;
        let (to_us, answers) = mpsc::sync_channel(MAX_IN_FLIGHT);
        thread::spawn(move || {
            loop {
                let answer = line::read(&mut from);
                let answer = answer.and_then(|answer| answer.ok_or_else(|| ErrorKind::UnexpectedEof.into()));
                let last = answer.is_err();
                if to_us.send(answer).is_err() || last {
                    return;
                }
            }
        });
        Ok(Some(Self { requests: BufWriter::new(stream), answers }))
    }

    pub(crate) fn send(&mut self, request: &Request) -> Result<(), Failure> {
        line::write(&mut self.requests, request).map_err(|error| lost(&error))
    }

    pub(crate) fn receive(&mut self) -> Outcome {
        self.requests.flush().map_err(|error| lost(&error))?;
        match self.answers.recv() {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(lost(&error)),
            Err(_) => Err(lost(&ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn lost(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::FileTooLarge => Failure::new(
            Code::TooLarge,
            "the document is too large for the control socket",
            "stop `peat serve` and run the command again",
        ),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Failure::new(
            Code::Closed,
            "the running `peat serve` ended before it answered",
            "see what is there with `peat get`, and run the command again",
        ),
        ErrorKind::PermissionDenied => Failure::new(
            Code::Locked,
            "the running `peat serve` belongs to another user",
            "run the command as that user, or choose another --dir",
        ),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::new(
            Code::Busy,
            format!("the running `peat serve` did not answer within {} s", GREETING_TIMEOUT.as_secs()),
            "see whether it is stopped or the machine overloaded, and run the command again",
        ),
        _ => Failure::new(
            Code::Busy,
            format!("the running `peat serve` cannot be talked to: {error}"),
            "restart `peat serve`, and run the command again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serve_that_says_nothing_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        // Connections are made by the kernel, and nobody takes them in.
        let _silent = socket::listen(dir.path()).expect("listens");
        let waited = Client::connect_within(Duration::from_millis(20), dir.path());
        assert_eq!(waited.map(|_| ()).map_err(|failure| failure.code), Err(Code::Busy));
    }
}
