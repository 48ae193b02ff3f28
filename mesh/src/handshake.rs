//! Formation authentication at the start of a sync connection.
//!
//! ```text
//!   connector                                   acceptor
//!      0x01 ─────────────────────────────────────►
//!      ◄──────────── u32 LE length, u16 LE id length, formation id, 32 nonce
//!      u32 LE 32, response ──────────────────────►
//!      ◄───────────────────────── verdict: 0x01 accepted, anything else rejected
//! ```
//!
//! The connector's first byte matters: a QUIC stream does not exist for the acceptor before one
//! arrives, so without it both sides wait for ever.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::formation_key::{FormationKey, NONCE_BYTES, RESPONSE_BYTES};
use crate::reader::Reader;

/// How long each step may take; then the handshake fails.
pub const HANDSHAKE_STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest challenge that a connector accepts, in bytes.
pub const CHALLENGE_BYTES_MAX: usize = 1024;
/// Longest response that an acceptor reads, in bytes.
pub const RESPONSE_MESSAGE_BYTES_MAX: usize = 256;

/// `FORMATION_AUTH_VERSION`: what the connector says first.
const PREAMBLE: u8 = 0x01;
const ACCEPTED: u8 = 0x01;
const REJECTED: u8 = 0x00;

/// A peer could not be authenticated; its connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer belongs to another formation.
    #[error(
        "authenticate to a mesh node: it belongs to formation {theirs:?}, we to {ours:?}; check the \
         formation id on both sides"
    )]
    WrongFormation {
        /// Our formation id.
        ours: String,
        /// What the challenge named.
        theirs: String,
    },
    /// One side has another secret.
    #[error("authenticate: the response was rejected; check the shared key on both sides")]
    Rejected,
    /// The peer does not speak this handshake.
    #[error("authenticate: the peer's {step} is malformed: {problem}")]
    Malformed {
        /// Which step.
        step: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The peer took too long.
    #[error("authenticate: the peer's {step} did not arrive within 30 s")]
    Timeout {
        /// What was waited for.
        step: &'static str,
    },
    /// The stream failed or ended. A node that rejects mostly closes before its verdict arrives.
    #[error("authenticate: the connection was lost during the {step}")]
    Lost {
        /// Which step.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The operating system gave no randomness.
    #[error("authenticate: no random nonce could be made: {0}")]
    NoRandomness(getrandom::Error),
}

/// What an acceptor asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// The formation it belongs to.
    pub formation_id: String,
    /// What the connector must answer.
    pub nonce: [u8; NONCE_BYTES],
}

impl Challenge {
    /// Returns the bytes on the wire, without their length.
    ///
    /// # Panics
    /// The formation id has more than 65535 bytes, which no [`FormationKey`] has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let id_bytes =
            u16::try_from(self.formation_id.len()).expect("formation keys limit their ids");
        [&id_bytes.to_le_bytes(), self.formation_id.as_bytes(), &self.nonce].concat()
    }

    /// Reads a challenge; bytes after it are an error.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`].
    pub fn decode(input: &[u8]) -> Result<Self, HandshakeError> {
        let malformed = |problem: &str| HandshakeError::Malformed {
            step: "challenge",
            problem: problem.to_owned(),
        };
        let mut reader = Reader::new(input);
        let missing = |_| malformed("it is too short");
        let id_bytes = usize::from(reader.u16_le("id length").map_err(missing)?);
        let formation_id = reader.take(id_bytes, "formation id").map_err(missing)?;
        let nonce = reader.array("nonce").map_err(missing)?;
        if !reader.is_empty() {
            return Err(malformed("something follows the nonce"));
        }
        let formation_id =
            str::from_utf8(formation_id).map_err(|_| malformed("the formation id is not UTF-8"))?;
        Ok(Self { formation_id: formation_id.to_owned(), nonce })
    }
}

/// Authenticates to a peer that we dialled, on the first stream of the connection.
///
/// # Errors
/// See [`HandshakeError`]; the caller closes the connection.
pub async fn connect<W, R>(
    send: &mut W,
    receive: &mut R,
    key: &FormationKey,
) -> Result<(), HandshakeError>
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    write(send, &[PREAMBLE], "preamble").await?;
    let challenge = read_message(receive, CHALLENGE_BYTES_MAX, "challenge").await?;
    let challenge = Challenge::decode(&challenge)?;
    if challenge.formation_id != key.formation_id() {
        return Err(HandshakeError::WrongFormation {
            ours: key.formation_id().to_owned(),
            theirs: challenge.formation_id,
        });
    }
    write_message(send, &key.respond(&challenge.nonce), "response").await?;
    let mut verdict = [REJECTED];
    read(receive, &mut verdict, "verdict").await?;
    if verdict == [ACCEPTED] { Ok(()) } else { Err(HandshakeError::Rejected) }
}

/// Authenticates a peer that dialled us, on the first stream it opened. Afterwards the caller
/// finishes the sending half.
///
/// # Errors
/// See [`HandshakeError`]; the caller closes the connection. A peer that is rejected has been told.
pub async fn accept<W, R>(
    send: &mut W,
    receive: &mut R,
    key: &FormationKey,
) -> Result<(), HandshakeError>
where
    W: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
{
    let mut preamble = [0];
    read(receive, &mut preamble, "preamble").await?;
    if preamble != [PREAMBLE] {
        return Err(HandshakeError::Malformed {
            step: "preamble",
            problem: format!("{:#04x} is not version 1", preamble[0]),
        });
    }
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(HandshakeError::NoRandomness)?;
    let challenge = Challenge { formation_id: key.formation_id().to_owned(), nonce };
    write_message(send, &challenge.encode(), "challenge").await?;
    let response = read_message(receive, RESPONSE_MESSAGE_BYTES_MAX, "response").await?;
    let response: [u8; RESPONSE_BYTES] =
        response.as_slice().try_into().map_err(|_| HandshakeError::Malformed {
            step: "response",
            problem: format!("it has {} bytes instead of {RESPONSE_BYTES}", response.len()),
        })?;
    if key.verify(&nonce, &response) {
        write(send, &[ACCEPTED], "verdict").await
    } else {
        write(send, &[REJECTED], "verdict").await?;
        Err(HandshakeError::Rejected)
    }
}

async fn write_message<W: AsyncWrite + Unpin>(
    send: &mut W,
    message: &[u8],
    step: &'static str,
) -> Result<(), HandshakeError> {
    let length = u32::try_from(message.len()).expect("challenges and responses are short");
    write(send, &[&length.to_le_bytes(), message].concat(), step).await
}

async fn read_message<R: AsyncRead + Unpin>(
    receive: &mut R,
    bytes_max: usize,
    step: &'static str,
) -> Result<Vec<u8>, HandshakeError> {
    let mut length = [0; 4];
    read(receive, &mut length, step).await?;
    let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if bytes > bytes_max {
        return Err(HandshakeError::Malformed {
            step,
            problem: format!("{bytes} bytes are over the limit of {bytes_max}"),
        });
    }
    let mut message = vec![0; bytes];
    read(receive, &mut message, step).await?;
    Ok(message)
}

async fn write<W: AsyncWrite + Unpin>(
    send: &mut W,
    bytes: &[u8],
    step: &'static str,
) -> Result<(), HandshakeError> {
    let written = async {
        send.write_all(bytes).await?;
        send.flush().await
    };
    settle(timeout(HANDSHAKE_STEP_TIMEOUT, written).await, step)
}

async fn read<R: AsyncRead + Unpin>(
    receive: &mut R,
    buffer: &mut [u8],
    step: &'static str,
) -> Result<(), HandshakeError> {
    let read = async { receive.read_exact(buffer).await.map(|_| ()) };
    settle(timeout(HANDSHAKE_STEP_TIMEOUT, read).await, step)
}

fn settle<E>(outcome: Result<io::Result<()>, E>, step: &'static str) -> Result<(), HandshakeError> {
    match outcome {
        Err(_) => Err(HandshakeError::Timeout { step }),
        Ok(result) => result.map_err(|source| HandshakeError::Lost { step, source }),
    }
}
