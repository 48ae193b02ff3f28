//! A lean HTTP/2 client without TLS (prior knowledge) for load: many requests under way on one connection.
//!
//! ```text
//!   slots ── send ──► output ── one write ──► server
//!     ▲                                          │
//!     └── next_answer ◄── input ◄── one read ◄───┘
//! ```
//!
//! Both sides of every comparison are loaded by this client: `PATCH` and `GET` of the gateway, gRPC
//! of etcd. A general client costs ten times the processor time, which servers and load share here.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::hpack::{self, Encoder};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest frame that a server may send without being allowed more.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// What is granted to the server at once for all answers together, and again when half of it is used.
const RECEIVE_WINDOW_BYTES: u32 = 64 << 20;
/// What HTTP/2 grants at the beginning of a connection.
const WINDOW_BYTES_AT_FIRST: u32 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// `RST_STREAM` with this code says that nothing was done.
const REFUSED_STREAM: u32 = 7;
/// `SETTINGS_HEADER_TABLE_SIZE`.
const HEADER_TABLE_SIZE: u16 = 1;

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'r> {
    pub(super) method: Method,
    pub(super) path: &'r str,
    /// Whether the body is a gRPC message, whose frame is added here; else it is JSON.
    pub(super) grpc: bool,
    pub(super) body: &'r [u8],
}

/// A method that loads need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Patch,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was answered, with this status; `None` if the status can't be told (it is none of the usual).
    Answered(Option<u16>),
    /// The server did nothing with it: it may be sent elsewhere.
    Refused,
    /// The server broke it off.
    Broken,
}

/// An answer that is complete.
#[derive(Debug)]
pub(super) struct Answer {
    /// What [`Http2::send`] returned for the request.
    pub(super) stream: u32,
    pub(super) end: End,
    /// Its body.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Whether it is a success with a body: in gRPC, an answer without a message is an error.
    pub(super) fn is_ok(&self) -> bool {
        self.end == End::Answered(Some(200)) && !self.body.is_empty()
    }
}

/// A request that waits for its answer.
struct Waiting {
    stream: u32,
    status: Option<u16>,
    body: Vec<u8>,
}

/// One connection.
pub(super) struct Http2 {
    socket: TcpStream,
    authority: String,
    encoder: Encoder,
    output: Vec<u8>,
    input: Vec<u8>,
    /// How much of `input` is parsed.
    parsed: usize,
    waiting: Vec<Waiting>,
    /// Bodies to use again.
    spare: Vec<Vec<u8>>,
    next_stream: u32,
    /// What the server lets us send, for all requests together.
    send_window: i64,
    received: u32,
    /// The last request that a server that goes away still answers.
    last_stream: Option<u32>,
    closed: bool,
}

impl Http2 {
    /// Connects to `host:port`. With `plain_status` the server is told to keep no table of headers, so
    /// that every status can be read.
    pub(super) async fn open(host: &str, plain_status: bool) -> io::Result<Self> {
        let socket = TcpStream::connect(host).await?;
        socket.set_nodelay(true)?;
        let mut output = PREFACE.to_vec();
        let mut settings = Vec::new();
        if plain_status {
            settings.extend_from_slice(&HEADER_TABLE_SIZE.to_be_bytes());
            settings.extend_from_slice(&0u32.to_be_bytes());
        }
        frame(&mut output, SETTINGS, 0, 0, &settings);
        let grant = RECEIVE_WINDOW_BYTES - WINDOW_BYTES_AT_FIRST;
        frame(&mut output, WINDOW_UPDATE, 0, 0, &grant.to_be_bytes());
        Ok(Self {
            socket,
            authority: host.to_owned(),
            encoder: Encoder::default(),
            output,
            input: Vec::with_capacity(64 << 10),
            parsed: 0,
            waiting: Vec::new(),
            spare: Vec::new(),
            next_stream: 1,
            send_window: i64::from(WINDOW_BYTES_AT_FIRST),
            received: 0,
            last_stream: None,
            closed: false,
        })
    }

    /// Adds a request to the output; returns its stream.
    ///
    /// # Errors
    /// The server hasn't let us send so much: it has stopped to read.
    pub(super) fn send(&mut self, request: Request<'_>) -> io::Result<u32> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut block = Vec::with_capacity(64);
        match request.method {
            Method::Get => Encoder::indexed(&mut block, 2),
            Method::Post => Encoder::indexed(&mut block, 3),
            Method::Patch => self.encoder.repeated(&mut block, ":method", "PATCH"),
        }
        Encoder::indexed(&mut block, 6); // :scheme http
        self.encoder.repeated(&mut block, ":authority", &self.authority);
        if request.grpc {
            self.encoder.repeated(&mut block, ":path", request.path);
            self.encoder.repeated(&mut block, "content-type", "application/grpc");
            self.encoder.repeated(&mut block, "te", "trailers");
        } else {
            Encoder::path(&mut block, request.path);
            if !request.body.is_empty() {
                self.encoder.repeated(&mut block, "content-type", "application/json");
            }
        }
        let prefix = if request.grpc { 5 } else { 0 };
        let length = prefix + request.body.len();
        let end = if length == 0 { END_STREAM } else { 0 };
        frame(&mut self.output, HEADERS, END_HEADERS | end, stream, &block);
        if length > 0 {
            self.send_window -= length as i64;
            if self.send_window < 0 || length > FRAME_BYTES_MAX {
                return Err(malformed("the server reads no more, or the body is too long"));
            }
            head(&mut self.output, length, DATA, END_STREAM, stream);
            if request.grpc {
                self.output.push(0);
                self.output.extend_from_slice(&(request.body.len() as u32).to_be_bytes());
            }
            self.output.extend_from_slice(request.body);
        }
        let body = self.spare.pop().unwrap_or_default();
        self.waiting.push(Waiting { stream, status: None, body });
        Ok(stream)
    }

    /// Writes what is in the output.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.socket.write_all(&self.output).await?;
            self.output.clear();
        }
        Ok(())
    }

    /// Waits for bytes from the server.
    ///
    /// # Errors
    /// The connection is closed.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        self.input.drain(..self.parsed);
        self.parsed = 0;
        if self.socket.read_buf(&mut self.input).await? == 0 {
            self.closed = true;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Gives an answer's body back, so that the next one needs no new memory.
    pub(super) fn recycle(&mut self, mut answer: Answer) {
        answer.body.clear();
        self.spare.push(answer.body);
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// The connection broke: it isn't known what became of the request.
    pub(super) async fn exchange(&mut self, request: Request<'_>) -> io::Result<Answer> {
        let stream = self.send(request)?;
        self.answer(stream).await
    }

    /// Writes what is in the output, and waits for the answer to one request; others' are dropped.
    ///
    /// # Errors
    /// As [`Http2::exchange`].
    pub(super) async fn answer(&mut self, stream: u32) -> io::Result<Answer> {
        if let Err(error) = self.flush().await {
            // What the server said before it closed decides.
            if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
                return Err(error);
            }
        }
        loop {
            while let Some(answer) = self.next_answer()? {
                if answer.stream == stream {
                    return Ok(answer);
                }
            }
            self.flush().await.ok();
            self.fill().await?;
        }
    }

    /// Whether the server still takes requests on this connection, as far as it has said until now.
    pub(super) fn is_open(&mut self) -> bool {
        let mut some = [0; 4096];
        while !self.closed {
            match self.socket.try_read(&mut some) {
                Ok(0) => self.closed = true,
                Ok(count) => self.input.extend_from_slice(&some[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
        }
        // Nothing is under way, so that no answer is lost here.
        while let Ok(Some(_)) = self.next_answer() {}
        !self.closed && self.last_stream.is_none()
    }

    /// Takes the next complete answer from what was read.
    ///
    /// # Errors
    /// What the server sent is no HTTP/2.
    pub(super) fn next_answer(&mut self) -> io::Result<Option<Answer>> {
        loop {
            if let Some(last) = self.last_stream
                && let Some(place) = self.waiting.iter().position(|waiting| waiting.stream > last)
            {
                return Ok(Some(self.take(place, End::Refused)));
            }
            let rest = &self.input[self.parsed..];
            if rest.len() < 9 {
                return Ok(None);
            }
            let length =
                usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
            if length > FRAME_BYTES_MAX {
                return Err(malformed("a frame is longer than we allow"));
            }
            if rest.len() < 9 + length {
                return Ok(None);
            }
            let (kind, flags) = (rest[3], rest[4]);
            let stream = number(&rest[5..9]) & 0x7fff_ffff;
            let payload = self.parsed + 9..self.parsed + 9 + length;
            self.parsed += 9 + length;
            if let Some(answer) = self.frame(kind, flags, stream, payload)? {
                return Ok(Some(answer));
            }
        }
    }

    /// Takes one frame; returns the answer that it completes.
    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: std::ops::Range<usize>,
    ) -> io::Result<Option<Answer>> {
        let bytes = self.input.get(payload.clone()).ok_or_else(|| malformed("a frame"))?;
        let place = self.waiting.iter().position(|waiting| waiting.stream == stream);
        match kind {
            DATA => {
                self.received += payload.len() as u32;
                if let Some(place) = place {
                    self.waiting[place].body.extend_from_slice(unpadded(flags, bytes, 0)?);
                }
                if self.received >= RECEIVE_WINDOW_BYTES / 2 {
                    let grant = std::mem::take(&mut self.received).to_be_bytes();
                    frame(&mut self.output, WINDOW_UPDATE, 0, 0, &grant);
                }
            }
            HEADERS => {
                let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
                let status = hpack::status(unpadded(flags, bytes, priority)?);
                if let Some(place) = place
                    && self.waiting[place].status.is_none()
                {
                    self.waiting[place].status = status;
                }
            }
            // More of a block whose beginning has told the status.
            CONTINUATION => return Ok(None),
            RST_STREAM => {
                let refused = bytes.len() == 4 && number(bytes) == REFUSED_STREAM;
                let end = if refused { End::Refused } else { End::Broken };
                return Ok(place.map(|place| self.take(place, end)));
            }
            SETTINGS if flags & ACK == 0 => frame(&mut self.output, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => {
                let echo = bytes.to_vec();
                frame(&mut self.output, PING, ACK, 0, &echo);
            }
            GOAWAY if bytes.len() >= 8 => self.last_stream = Some(number(bytes) & 0x7fff_ffff),
            WINDOW_UPDATE if stream == 0 && bytes.len() == 4 => {
                self.send_window += i64::from(number(bytes) & 0x7fff_ffff);
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS)
            && flags & END_STREAM != 0
            && let Some(place) = place
        {
            let status = self.waiting[place].status;
            return Ok(Some(self.take(place, End::Answered(status))));
        }
        Ok(None)
    }

    fn take(&mut self, place: usize, end: End) -> Answer {
        let Waiting { stream, body, .. } = self.waiting.swap_remove(place);
        Answer { stream, end, body }
    }
}

fn unpadded(flags: u8, bytes: &[u8], skip: usize) -> io::Result<&[u8]> {
    let (from, padding) = match (flags & PADDED, bytes.first()) {
        (0, _) => (skip, 0),
        (_, first) => (skip + 1, usize::from(*first.ok_or_else(|| malformed("padding"))?)),
    };
    let to = bytes.len().checked_sub(padding).ok_or_else(|| malformed("padding"))?;
    bytes.get(from..to).ok_or_else(|| malformed("padding"))
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    head(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
