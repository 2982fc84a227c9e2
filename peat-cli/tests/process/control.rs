//! The control socket, as any program can use it: lines of JSON.

use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// Far longer than a busy `serve` takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to a running `serve`. Answers come in the order of the requests.
pub(crate) struct Control {
    requests: BufWriter<UnixStream>,
    answers: BufReader<UnixStream>,
}

impl Control {
    /// Connects to the `serve` that runs on `dir`.
    pub(crate) fn connect(dir: &Path) -> Result<Self> {
        let stream = UnixStream::connect(dir.join("control.sock"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut control = Self { answers: BufReader::new(stream.try_clone()?), requests: BufWriter::new(stream) };
        assert_eq!(control.line()?, json!({"Ok": {"peat": 1}}));
        Ok(control)
    }

    pub(crate) fn send(&mut self, request: &Value) -> Result<()> {
        writeln!(self.requests, "{request}")
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.requests.flush()
    }

    /// The outcome of the oldest request without one; an error when the `serve` has ended.
    pub(crate) fn receive(&mut self) -> Result<std::result::Result<Value, Value>> {
        let mut line = self.line()?;
        match line.get_mut("Ok") {
            Some(answer) => Ok(Ok(answer.take())),
            None => Ok(Err(line["Err"].take())),
        }
    }

    /// One request that must succeed.
    #[track_caller]
    pub(crate) fn call(&mut self, request: &Value) -> Value {
        self.send(request).and_then(|()| self.flush()).expect("serve takes requests");
        let outcome = self.receive().expect("serve answers");
        outcome.unwrap_or_else(|failure| panic!("{request}: {failure}"))
    }

    /// Waits until the node is proven equal with this peer.
    #[track_caller]
    pub(crate) fn level_with(&mut self, peer: &str) {
        let timeout = json!({"secs": 50, "nanos": 0});
        self.call(&json!({"op": "level", "peer": peer, "timeout": timeout}));
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        // A line that is cut short says nothing.
        if !line.ends_with('\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line).expect("JSON"))
    }
}
