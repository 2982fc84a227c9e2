//! A legacy peer on a real endpoint: its inputs come from iroh and its outputs go there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use iroh::{Endpoint, EndpointAddr, SecretKey};
use peat_proto::{ConnId, Now, PeerId, Role, StreamId, Time};
use peat_tests::legacy::{Config, Input, Member, Output};
use tokio::sync::{mpsc, oneshot};

use super::client::{ALPN, endpoint, reach, within};

type Act = Box<dyn FnOnce(&mut Member, Now) + Send>;
type Condition = Box<dyn Fn(&Member) -> bool + Send>;

enum Command {
    Input(Input),
    Connected(Connection, Role),
    Dial(EndpointAddr),
    Act(Act),
    Until(Condition, oneshot::Sender<()>),
}

/// The peer runs until this is dropped.
pub(crate) struct Served {
    pub(crate) addr: EndpointAddr,
    commands: mpsc::UnboundedSender<Command>,
}

impl Served {
    pub(crate) async fn start(config: Config, member: impl Fn(PeerId, Config, u64, Now) -> Member) -> Self {
        let endpoint = endpoint(SecretKey::generate().to_bytes()).await;
        let addr = reach(&endpoint);
        let began = Instant::now();
        let member = member(PeerId(*endpoint.id().as_bytes()), config, 1, clock(began));
        let (commands, queue) = mpsc::unbounded_channel();
        let weak = commands.downgrade();
        let peer = Driver { began, endpoint, member, connections: BTreeMap::new(), waiting: Vec::new(), weak };
        tokio::spawn(peer.run(queue));
        Self { addr, commands }
    }

    pub(crate) async fn act(&self, act: impl FnOnce(&mut Member, Now) + Send + 'static) {
        let (done, did) = oneshot::channel();
        let act: Act = Box::new(move |member, now| {
            act(member, now);
            let _ = done.send(());
        });
        self.tell(Command::Act(act));
        within(did).await.expect("the peer runs");
    }

    pub(crate) async fn until(&self, holds: impl Fn(&Member) -> bool + Send + 'static) {
        let (done, did) = oneshot::channel();
        self.tell(Command::Until(Box::new(holds), done));
        within(did).await.expect("the peer runs");
    }

    pub(crate) async fn dial(&self, addr: EndpointAddr) {
        self.tell(Command::Dial(addr));
    }

    fn tell(&self, command: Command) {
        assert!(self.commands.send(command).is_ok(), "the peer runs");
    }
}

struct Driver {
    began: Instant,
    endpoint: Endpoint,
    member: Member,
    connections: BTreeMap<ConnId, mpsc::UnboundedSender<Output>>,
    waiting: Vec<(Condition, oneshot::Sender<()>)>,
    weak: mpsc::WeakUnboundedSender<Command>,
}

impl Driver {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Command>) {
        loop {
            let due = self.member.timeout().map(|due| self.began + Duration::from_micros(due.as_micros()));
            let alarm = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return self.endpoint.close().await,
                },
                incoming = self.endpoint.accept() => {
                    if let (Some(incoming), Some(commands)) = (incoming, self.weak.upgrade()) {
                        tokio::spawn(async move {
                            if let Ok(connection) = incoming.await {
                                let _ = commands.send(Command::Connected(connection, Role::Accepted));
                            }
                        });
                    }
                }
                () = alarm => self.member.handle(clock(self.began), Input::Timeout),
            }
            while let Some(output) = self.member.poll() {
                self.output(output);
            }
            let member = &self.member;
            for (_, done) in self.waiting.extract_if(.., |(holds, _)| holds(member)) {
                let _ = done.send(());
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = clock(self.began);
        match command {
            Command::Input(input) => {
                if let Input::Disconnected { conn } = &input {
                    self.connections.remove(conn);
                }
                self.member.handle(now, input);
            }
            Command::Act(act) => act(&mut self.member, now),
            Command::Until(holds, done) => self.waiting.push((holds, done)),
            Command::Dial(addr) => {
                let Some(commands) = self.weak.upgrade() else { return };
                let endpoint = self.endpoint.clone();
                tokio::spawn(async move {
                    if let Ok(connection) = endpoint.connect(addr, ALPN).await {
                        let _ = commands.send(Command::Connected(connection, Role::Dialled));
                    }
                });
            }
            Command::Connected(connection, role) => {
                let Some(commands) = self.weak.upgrade() else { return };
                let conn = ConnId(connection.stable_id() as u64);
                let peer = PeerId(*connection.remote_id().as_bytes());
                let (outputs, queue) = mpsc::unbounded_channel();
                self.connections.insert(conn, outputs);
                self.member.handle(now, Input::Connected { conn, peer, role });
                let link = Link { conn, role, connection, commands, halves: BTreeMap::new(), stops: BTreeMap::new() };
                tokio::spawn(link.run(queue));
            }
        }
    }

    fn output(&mut self, output: Output) {
        match &output {
            Output::Open { conn, .. }
            | Output::Write { conn, .. }
            | Output::Stop { conn, .. }
            | Output::Close { conn, .. } => {
                // A connection that has just ended takes nothing more.
                if let Some(outputs) = self.connections.get(conn) {
                    let _ = outputs.send(output);
                }
            }
            // Nobody here is dialled by name.
            Output::Dial { .. } => {}
        }
    }
}

/// One connection: opens streams in order, writes on them, and reads what comes.
struct Link {
    conn: ConnId,
    role: Role,
    connection: Connection,
    commands: mpsc::UnboundedSender<Command>,
    halves: BTreeMap<StreamId, SendStream>,
    stops: BTreeMap<StreamId, oneshot::Sender<()>>,
}

impl Link {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Output>) {
        loop {
            let connection = self.connection.clone();
            tokio::select! {
                output = queue.recv() => match output {
                    Some(Output::Close { code, .. }) => break connection.close(code.into(), b""),
                    Some(output) => self.perform(output).await,
                    None => break,
                },
                accepted = connection.accept_bi() => match accepted {
                    Ok((half, stream)) => {
                        let id = StreamId(stream.id().into());
                        self.halves.insert(id, half);
                        self.read(id, stream);
                    }
                    Err(_) => break,
                },
                accepted = connection.accept_uni() => match accepted {
                    Ok(stream) => self.read(StreamId(stream.id().into()), stream),
                    Err(_) => break,
                },
            }
        }
        let _ = self.commands.send(Command::Input(Input::Disconnected { conn: self.conn }));
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Open { stream, bytes, fin, stop, .. } => {
                let half = if stream.is_bidirectional() {
                    let Ok((half, mut other)) = self.connection.open_bi().await else { return };
                    if stop {
                        let _ = other.stop(0_u32.into());
                    } else {
                        self.read(stream, other);
                    }
                    half
                } else {
                    let Ok(half) = self.connection.open_uni().await else { return };
                    half
                };
                assert_eq!(StreamId(half.id().into()), stream, "streams are opened in the order of their numbers");
                assert_eq!(stream.opener(), self.role);
                self.halves.insert(stream, half);
                self.write(stream, bytes, fin).await;
            }
            Output::Write { stream, bytes, fin, .. } => self.write(stream, bytes, fin).await,
            Output::Stop { stream, .. } => drop(self.stops.remove(&stream)),
            Output::Close { .. } | Output::Dial { .. } => {}
        }
    }

    async fn write(&mut self, stream: StreamId, bytes: Bytes, fin: bool) {
        let Some(half) = self.halves.get_mut(&stream) else { return };
        if half.write_all(&bytes).await.is_err() {
            self.halves.remove(&stream);
            let _ = self.commands.send(Command::Input(Input::Stopped { conn: self.conn, stream }));
        } else if fin {
            let _ = half.finish();
            self.halves.remove(&stream);
        }
    }

    /// Reads a stream until it ends or is stopped by dropping its handle.
    fn read(&mut self, id: StreamId, mut stream: RecvStream) {
        let (handle, mut stopped) = oneshot::channel::<()>();
        self.stops.insert(id, handle);
        let (conn, commands) = (self.conn, self.commands.clone());
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            loop {
                let outcome = tokio::select! {
                    _ = &mut stopped => {
                        let _ = stream.stop(0_u32.into());
                        return;
                    }
                    outcome = stream.read(&mut buffer) => outcome,
                };
                let (bytes, fin) = match outcome {
                    Ok(Some(len)) => (Bytes::copy_from_slice(&buffer[..len]), false),
                    Ok(None) => (Bytes::new(), true),
                    Err(_) => {
                        let _ = commands.send(Command::Input(Input::Reset { conn, stream: id }));
                        return;
                    }
                };
                if commands.send(Command::Input(Input::Received { conn, stream: id, bytes, fin })).is_err() || fin {
                    return;
                }
            }
        });
    }
}

fn clock(began: Instant) -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let micros = u64::try_from(began.elapsed().as_micros()).expect("a short test");
    Now {
        mono: Time::from_micros(micros),
        unix_ms: u64::try_from(unix.as_millis()).expect("before the year 500 million"),
    }
}
