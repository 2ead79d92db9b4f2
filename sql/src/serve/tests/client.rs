//! A server, and a client of few words.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use datafusion::execution::context::SessionContext;

use crate::serve::{Listening, Server};
use crate::testing::session;

/// What a test that waits in vain ends with.
const LIMIT: Duration = Duration::from_secs(300);

pub(super) struct Served {
    pub(super) context: SessionContext,
    pub(super) address: SocketAddr,
    pub(super) listening: Listening,
}

pub(super) fn served() -> Served {
    let context = session();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listening = Server::new(&context).unwrap().listen(listener).unwrap();
    Served { context, address, listening }
}

impl Served {
    /// A connection on which nothing was said.
    pub(super) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        socket
    }
}

/// The fields of an error, each behind its letter.
#[derive(Debug)]
pub(super) struct Failed(Vec<String>);

impl Failed {
    pub(super) fn field(&self, letter: char) -> Option<&str> {
        self.0.iter().find_map(|field| field.strip_prefix(letter))
    }

    pub(super) fn code(&self) -> &str {
        self.field('C').unwrap()
    }

    pub(super) fn message(&self) -> &str {
        self.field('M').unwrap()
    }
}

/// Rows as text, or an error.
pub(super) type Answer = Result<Vec<Vec<Option<String>>>, Failed>;

pub(super) struct Client {
    pub(super) socket: TcpStream,
    /// By which others cancel its statements: its number, then its key.
    pub(super) name: Vec<u8>,
}

/// A message without a letter: a code, and what belongs to it.
pub(super) fn request(code: i32, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

/// What a client says first.
pub(super) fn greeting() -> Vec<u8> {
    request(196_608, b"user\0somebody\0database\0anything\0\0")
}

pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

impl Client {
    pub(super) fn of(served: &Served) -> Self {
        Self::try_of(served).unwrap()
    }

    pub(super) fn try_of(served: &Served) -> Result<Self, Failed> {
        let mut client = Self { socket: served.connect(), name: Vec::new() };
        client.socket.write_all(&greeting()).unwrap();
        client.answer().map(|_| client)
    }

    pub(super) fn send(&mut self, tag: u8, body: &[u8]) {
        self.socket.write_all(&message(tag, body)).unwrap();
    }

    pub(super) fn begin(&mut self, sql: &str) {
        self.send(b'Q', format!("{sql}\0").as_bytes());
    }

    pub(super) fn ask(&mut self, sql: &str) -> Answer {
        self.begin(sql);
        self.answer()
    }

    /// Parse, bind, execute and sync, with parameters and rows as text.
    pub(super) fn prepared(&mut self, sql: &str, parameters: &[&str]) -> Answer {
        self.send(b'P', format!("\0{sql}\0\0\0").as_bytes());
        let count = i16::try_from(parameters.len()).unwrap().to_be_bytes();
        let mut bind = [b"\0\0\0\0", &count[..]].concat();
        for parameter in parameters {
            bind.extend(i32::try_from(parameter.len()).unwrap().to_be_bytes());
            bind.extend(parameter.as_bytes());
        }
        bind.extend([0, 0]);
        self.send(b'B', &bind);
        self.send(b'E', b"\0\0\0\0\0");
        self.send(b'S', b"");
        self.answer()
    }

    /// Asks for one row and leaves the others for later.
    pub(super) fn open(&mut self, portal: &str, sql: &str) -> Answer {
        self.send(b'P', format!("\0{sql}\0\0\0").as_bytes());
        self.send(b'B', format!("{portal}\0\0\0\0\0\0\0\0").as_bytes());
        self.send(b'E', format!("{portal}\0\0\0\0\x01").as_bytes());
        self.send(b'S', b"");
        self.answer()
    }

    /// Cancels what this client asked, as another connection, and waits until the server has taken note.
    pub(super) fn cancel(&self, served: &Served) {
        let mut socket = served.connect();
        socket.write_all(&request(80_877_102, &self.name)).unwrap();
        assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
    }

    pub(super) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.socket.read_exact(&mut head).ok()?;
        let length = i32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.socket.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    /// What comes until the server is ready again, or closes.
    pub(super) fn answer(&mut self) -> Answer {
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            match self.next() {
                Some((b'D', body)) => rows.push(cells(&body)),
                Some((b'E', body)) => failed = Some(fields(&body)),
                Some((b'K', body)) => self.name = body,
                Some((b'Z', _)) => return failed.map_or(Ok(rows), Err),
                Some(_) => {}
                None => return Err(failed.unwrap()),
            }
        }
    }
}

fn cells(mut body: &[u8]) -> Vec<Option<String>> {
    let mut take = |count: usize| {
        let (taken, rest) = body.split_at(count);
        body = rest;
        taken
    };
    let count = i16::from_be_bytes(take(2).try_into().unwrap());
    let mut cell = || {
        let length = i32::from_be_bytes(take(4).try_into().unwrap());
        usize::try_from(length).ok().map(|length| String::from_utf8(take(length).to_vec()).unwrap())
    };
    (0..count).map(|_| cell()).collect()
}

fn fields(body: &[u8]) -> Failed {
    Failed(String::from_utf8_lossy(body).split('\0').map(str::to_owned).collect())
}

/// Rows with `|` between their cells.
pub(super) fn texts(answer: Answer) -> Vec<String> {
    let rows = answer.unwrap_or_else(|error| panic!("{error:?}"));
    let cell = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".to_owned());
    rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join("|")).collect()
}
