//! The snapshot file.
//!
//! ```text
//!  0        header region, 128 KiB: "PEATSNAP", u32 length, stored.v1.SnapshotHeader, CRC-32C, zeros
//!  128 KiB  blocks: u32 length, family byte, rows (u32 key length, u32 value length, key, value)…, CRC-32C
//!  end      u32 zero, u64 rows, BLAKE3 of blocks ‖ rows ‖ header region
//! ```
//!
//! All numbers are big-endian. Rows are full keys in key order, family by family. The header is
//! written last, because it holds the number of rows; so the hash takes it last too.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use peat_gateway_proto::stored as proto;
use peat_gateway_state::command::FIRST_VERSION;
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::{Family, Space, VERSION};
use prost::Message;

use super::{SnapshotFile, Temporary};
use crate::store::error::StoreError;

/// The format of a snapshot of a cluster of version 1: builds from before there were versions read it.
const FORMAT_FIRST: u32 = 1;
/// The format from version 2 on: those builds refuse it. The header says the version.
const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"PEATSNAP";
/// Room for the header; a thousand members fit.
const HEADER_REGION_BYTES: usize = 128 << 10;
/// A block is written once its rows reach this.
const BLOCK_BYTES: usize = 64 << 10;
/// The largest block that is read: one row of the largest size. Larger is damage.
const BLOCK_BYTES_MAX: usize = 64 << 20;
/// Buffer of reads and writes.
const BUFFER_BYTES: usize = 256 << 10;
const TRAILER_BYTES: usize = 8 + blake3::OUT_LEN;

/// The format of a snapshot of a cluster of this version.
pub(super) fn format_of(version: u16) -> u32 {
    if version > FIRST_VERSION { FORMAT } else { FORMAT_FIRST }
}

/// Refuses what this build is too old for.
fn check_format(header: &proto::SnapshotHeader) -> Result<(), StoreError> {
    let (format, version) = (header.format, header.cluster_version);
    if !(FORMAT_FIRST..=FORMAT).contains(&format) {
        return Err(StoreError::Snapshot(format!(
            "its format is {format}, this version of peat-gateway reads up to {FORMAT}"
        )));
    }
    if version > u32::from(VERSION) {
        return Err(StoreError::Snapshot(format!(
            "its cluster has version {version}, this build understands up to {VERSION}; use a newer \
             build"
        )));
    }
    Ok(())
}

/// Writes blocks and the trailer; the header region belongs before them.
pub(super) struct BlockWriter<W> {
    to: W,
    /// What is written to, for errors.
    place: PathBuf,
    hasher: blake3::Hasher,
    block: Vec<u8>,
    family: Family,
    rows: u64,
}

impl<W: Write> BlockWriter<W> {
    /// Begins with the first block.
    pub(super) fn new(to: W, place: &Path) -> Self {
        Self {
            to,
            place: place.to_owned(),
            hasher: blake3::Hasher::new(),
            block: Vec::with_capacity(BLOCK_BYTES),
            family: Family::Records,
            rows: 0,
        }
    }

    /// Adds a row; families and keys come in order.
    pub(super) fn add(
        &mut self,
        family: Family,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        let row_bytes = 8 + key.len() + value.len();
        let full = !self.block.is_empty() && self.block.len() + row_bytes > BLOCK_BYTES;
        if full || family != self.family {
            self.end_block()?;
        }
        if row_bytes > BLOCK_BYTES_MAX {
            return Err(StoreError::Snapshot(format!("a row of {row_bytes} bytes is too large")));
        }
        self.family = family;
        // Both lengths are below BLOCK_BYTES_MAX, so they fit.
        self.block.extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.block.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.rows += 1;
        Ok(())
    }

    /// Rows added so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let mut head = [0; 5];
        head[..4].copy_from_slice(&(block.len() as u32).to_be_bytes());
        head[4] = family_byte(self.family);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&head), &block).to_be_bytes();
        for part in [&head[..], &block, &checksum] {
            self.put(part)?;
        }
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.to.write_all(bytes).map_err(StoreError::file("write", &self.place))
    }

    /// Writes the last block and the trailer, and gives back what was written to.
    pub(super) fn end(mut self, region: &[u8]) -> Result<W, StoreError> {
        self.end_block()?;
        let rows = self.rows.to_be_bytes();
        self.put(&[0; 4])?;
        self.put(&rows)?;
        self.hasher.update(region);
        let hash = self.hasher.finalize();
        self.to.write_all(hash.as_bytes()).map_err(StoreError::file("write", &self.place))?;
        Ok(self.to)
    }
}

/// Writes a snapshot file. The header, which holds the number of rows, is written last.
pub(super) struct SnapshotWriter {
    path: PathBuf,
    blocks: BlockWriter<BufWriter<File>>,
}

impl SnapshotWriter {
    /// Begins a file.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let open = || {
            let mut file =
                OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
            file.seek(SeekFrom::Start(HEADER_REGION_BYTES as u64))?;
            Ok(file)
        };
        let file = open().map_err(StoreError::file("create", path))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path: path.to_owned(), blocks: BlockWriter::new(file, path) })
    }

    /// Adds a row; families and keys come in order.
    pub(super) fn add(
        &mut self,
        family: Family,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.blocks.add(family, key, value)
    }

    /// Ends the file and makes it durable; returns its header, the file and its size. The number of rows is
    /// filled into the header.
    pub(super) fn finish(
        self,
        mut header: proto::SnapshotHeader,
    ) -> Result<(proto::SnapshotHeader, File, u64), StoreError> {
        header.rows = self.blocks.rows();
        let region = header_region(&header)?;
        let path = self.path;
        let file = self.blocks.end(&region)?;
        let end = || -> io::Result<(File, u64)> {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.write_all_at(&region, 0)?;
            file.sync_all()?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = end().map_err(StoreError::file("write", &path))?;
        Ok((header, file, bytes))
    }
}

/// Encodes the header region.
pub(super) fn header_region(header: &proto::SnapshotHeader) -> Result<Vec<u8>, StoreError> {
    let encoded = header.encode_to_vec();
    let mut region = Vec::with_capacity(HEADER_REGION_BYTES);
    region.extend_from_slice(MAGIC);
    region.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    region.extend_from_slice(&encoded);
    let checksum = crc32c::crc32c(&region).to_be_bytes();
    region.extend_from_slice(&checksum);
    if region.len() > HEADER_REGION_BYTES {
        return Err(StoreError::Snapshot("its membership is too large".to_owned()));
    }
    region.resize(HEADER_REGION_BYTES, 0);
    Ok(region)
}

/// Reads a snapshot and trusts nothing in it.
pub(crate) struct SnapshotReader<R = BufReader<File>> {
    file: R,
    header: proto::SnapshotHeader,
    region: Vec<u8>,
}

impl SnapshotReader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// The file is no snapshot, or of a newer format.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::file("open", path))?;
        Self::read(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    /// The handle of this file, unchecked beyond its header.
    pub(super) fn into_file(self, path: Temporary) -> Result<SnapshotFile, StoreError> {
        let file = self.file.into_inner();
        let bytes = file.metadata().map_err(StoreError::file("look at", &path.0))?.len();
        Ok(SnapshotFile::new(self.header, file, bytes, path))
    }
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is the beginning of no snapshot, or of one of a newer format.
    pub(crate) fn read(mut file: R) -> Result<Self, StoreError> {
        let mut region = vec![0; HEADER_REGION_BYTES];
        file.read_exact(&mut region).map_err(|error| damaged(&format!("header: {error}")))?;
        let length = read_u32(&region, MAGIC.len()).unwrap_or(0) as usize;
        let body_start = MAGIC.len() + 4;
        let checksum_at = body_start.saturating_add(length);
        if &region[..MAGIC.len()] != MAGIC {
            return Err(StoreError::Snapshot("it is no snapshot of peat-gateway".to_owned()));
        }
        let checksum = region.get(..checksum_at).map(crc32c::crc32c);
        if checksum.is_none() || read_u32(&region, checksum_at) != checksum {
            return Err(damaged("its header is none of a snapshot"));
        }
        let header = proto::SnapshotHeader::decode(&region[body_start..checksum_at])
            .map_err(|error| damaged(&format!("header: {error}")))?;
        check_format(&header)?;
        Ok(Self { file, header, region })
    }

    /// What it says it is a snapshot of.
    pub(crate) fn header(&self) -> &proto::SnapshotHeader {
        &self.header
    }

    /// Visits all rows, and then checks that they are exactly what was written: block checksums,
    /// key order, number of rows, the hash of the file and the state hash.
    ///
    /// # Errors
    /// Whatever isn't right, or what `visit` says. Rows visited before an error are worthless.
    pub(crate) fn each_row(
        mut self,
        mut visit: impl FnMut(Family, Space, &[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut hasher = blake3::Hasher::new();
        let mut sums = StateHash::default();
        let mut rows: u64 = 0;
        let mut last: Option<(Family, Vec<u8>)> = None;
        while let Some((family, block)) = self.next_block(&mut hasher)? {
            let mut rest = &block[..];
            while !rest.is_empty() {
                let (key, value) = take_row(&mut rest).ok_or_else(|| damaged("a row is cut"))?;
                let space = key
                    .first()
                    .and_then(|byte| Space::from_byte(*byte))
                    .filter(|space| space.family() == family)
                    .ok_or_else(|| damaged("a row is of no key space of its family"))?;
                if last.as_ref().is_some_and(|(f, k)| (*f, k.as_slice()) >= (family, key)) {
                    return Err(damaged("its rows are out of order"));
                }
                visit(family, space, key, value)?;
                sums.add(space, &key[1..], value);
                rows += 1;
                match &mut last {
                    Some((last_family, last_key)) => {
                        *last_family = family;
                        last_key.clear();
                        last_key.extend_from_slice(key);
                    }
                    None => last = Some((family, key.to_vec())),
                }
            }
        }
        self.check_trailer(hasher, rows)?;
        let wanted: StateHash = peat_gateway_state::codec::decode(&self.header.state_hash)
            .map_err(|reason| damaged(&format!("state hash: {reason}")))?;
        if wanted.digest() != sums.digest() {
            return Err(damaged("its rows don't give its state hash"));
        }
        Ok(())
    }

    fn next_block(
        &mut self,
        hasher: &mut blake3::Hasher,
    ) -> Result<Option<(Family, Vec<u8>)>, StoreError> {
        let mut head = [0; 5];
        self.fill(&mut head[..4])?;
        let length = read_u32(&head, 0).unwrap_or(0) as usize;
        if length == 0 {
            hasher.update(&head[..4]);
            return Ok(None);
        }
        if length > BLOCK_BYTES_MAX {
            return Err(damaged("a block is too long"));
        }
        self.fill(&mut head[4..])?;
        let family = family_of(head[4]).ok_or_else(|| damaged("a block is of no family"))?;
        let mut block = vec![0; length];
        self.fill(&mut block)?;
        let mut checksum = [0; 4];
        self.fill(&mut checksum)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head), &block).to_be_bytes() != checksum {
            return Err(damaged("a block's checksum is wrong"));
        }
        hasher.update(&head).update(&block).update(&checksum);
        Ok(Some((family, block)))
    }

    fn check_trailer(&mut self, mut hasher: blake3::Hasher, rows: u64) -> Result<(), StoreError> {
        let mut trailer = [0; TRAILER_BYTES];
        self.fill(&mut trailer)?;
        hasher.update(&trailer[..8]).update(&self.region);
        if rows.to_be_bytes() != trailer[..8] || rows != self.header.rows {
            return Err(damaged("rows are missing"));
        }
        if hasher.finalize().as_bytes()[..] != trailer[8..] {
            return Err(damaged("its hash is wrong"));
        }
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            _ => Err(damaged("bytes follow its end")),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact(bytes).map_err(|error| damaged(&error.to_string()))
    }
}

fn take_row<'b>(rest: &mut &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
    let key_bytes = read_u32(rest, 0)? as usize;
    let value_bytes = read_u32(rest, 4)? as usize;
    let (key, after_key) = rest.get(8..)?.split_at_checked(key_bytes)?;
    let (value, after_value) = after_key.split_at_checked(value_bytes)?;
    *rest = after_value;
    Some((key, value))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn damaged(reason: &str) -> StoreError {
    StoreError::Snapshot(format!("it is damaged: {reason}"))
}

/// Bytes are never reused.
fn family_byte(family: Family) -> u8 {
    match family {
        Family::Records => 1,
        Family::Journal => 2,
        Family::Documents => 3,
    }
}

fn family_of(byte: u8) -> Option<Family> {
    Family::ALL.into_iter().find(|family| family_byte(*family) == byte)
}
