//! A client's connection: requests of the protocol over a simulated socket, each with a time limit.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use futures_lite::future;
use ringmq_env::sim::{SimEnv, SimReader, SimWriter};
use ringmq_env::{Env, Stream, StreamReader, StreamWriter};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Limits, peek};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// Room for one read.
const READ: usize = 64 << 10;

/// The connection broke, or nothing came in time: nobody knows what became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// A connection.
pub struct Wire {
    env: SimEnv,
    reader: SimReader,
    writer: SimWriter,
    buffer: BytesMut,
    opaque: i32,
    /// The time for a call was up, and the connection was open.
    pub is_late: bool,
}

impl Wire {
    /// Connects to a server.
    pub async fn connect(env: &SimEnv, server: SocketAddr) -> Result<Wire, Lost> {
        let (reader, writer) = env.connect(server, CONNECT).await.map_err(|_| Lost)?.into_split();
        Ok(Wire { env: env.clone(), reader, writer, buffer: BytesMut::new(), opaque: 0, is_late: false })
    }

    /// Sends a request and waits for its answer. After an error the connection is of no more use.
    pub async fn call(&mut self, command: Command, limit: Duration) -> Result<Command, Lost> {
        let mut answers = self.call_all(vec![command], limit).await?;
        answers.pop().ok_or(Lost)
    }

    /// Sends requests in one write and waits for the answers to all of them, each of which must come once. After an
    /// error the connection is of no more use.
    pub async fn call_all(&mut self, commands: Vec<Command>, limit: Duration) -> Result<Vec<Command>, Lost> {
        let (env, is_late) = (self.env.clone(), Cell::new(false));
        let late = async {
            env.sleep(limit).await;
            is_late.set(true);
            Err(Lost)
        };
        let answers = future::or(self.exchange(commands), late).await;
        self.is_late = is_late.get();
        answers
    }

    async fn exchange(&mut self, commands: Vec<Command>) -> Result<Vec<Command>, Lost> {
        let first = self.opaque + 1;
        let mut answers: Vec<Option<Command>> = commands.iter().map(|_| None).collect();
        self.send(commands).await?;
        let mut missing = answers.len();
        while missing > 0 {
            let answer = self.next().await?;
            let place = answer.opaque - first;
            assert!(answer.is_response(), "nobody has told the broker to ask this client: {answer:?}");
            let place = usize::try_from(place).expect("an answer to a request of this call");
            let known = answers[place].replace(answer);
            assert!(known.is_none(), "a request is answered twice: {known:?}");
            missing -= 1;
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Sends requests in one write.
    pub async fn send(&mut self, commands: Vec<Command>) -> Result<(), Lost> {
        let mut bytes = BytesMut::new();
        for mut command in commands {
            self.opaque += 1;
            command.opaque = self.opaque;
            command.encode_json(&mut bytes);
        }
        self.writer.write_all(&[std::io::IoSlice::new(&bytes)]).await.map_err(|_| Lost)
    }

    /// The next command that comes. A wait that is given up loses nothing.
    pub async fn next(&mut self) -> Result<Command, Lost> {
        loop {
            let size = peek(&self.buffer, &Limits::default()).expect("what a broker sends are frames");
            if let Some(size) = size.filter(|size| self.buffer.len() >= *size) {
                let mut frame = self.buffer.split_to(size);
                return Ok(Command::decode(&mut frame, &Limits::default()).expect("a frame of the protocol"));
            }
            self.buffer.reserve(READ);
            match self.reader.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(Lost),
                Ok(_) => {}
            }
        }
    }
}
