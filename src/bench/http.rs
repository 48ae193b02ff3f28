//! A keep-alive HTTP/1.1 client for load: one connection, one request at a time.
//!
//! A general client costs more processor time per request than the server that it loads; on a
//! machine that runs both, that would measure the client.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest response head that is read, bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest response body that is read, bytes.
const BODY_BYTES_MAX: usize = 4 << 20;

/// One connection.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    pub(super) async fn open(host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            host: host.to_owned(),
            line: String::new(),
            body: Vec::new(),
        })
    }

    /// Sends a request, reads the answer, returns its status; the body is in [`Connection::body`].
    pub(super) async fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<u16> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        self.line().await?;
        let status = self.line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| malformed("no status in the answer"))?;
        let (mut length, mut head) = (0usize, 0usize);
        loop {
            self.line().await?;
            head += self.line.len();
            if head > HEAD_BYTES_MAX {
                return Err(malformed("the answer's head is too long"));
            }
            let line = self.line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(|_| malformed("content-length"))?;
            }
        }
        if length > BODY_BYTES_MAX {
            return Err(malformed("the answer's body is too long"));
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).await?;
        Ok(status)
    }

    /// The last answer's body.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    async fn line(&mut self) -> io::Result<()> {
        self.line.clear();
        match self.stream.read_line(&mut self.line).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
