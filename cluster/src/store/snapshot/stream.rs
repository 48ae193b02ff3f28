//! A snapshot as a stream: nothing touches this node's disk, and nothing is held but one block.
//!
//! The header comes first and holds the number of rows, so the view is read twice: once to count,
//! once to write. Old rows that the view shows are kept on the disk while that takes.

use std::io::Write;
use std::path::Path;

use peat_gateway_state::Family;

use super::file::header_of;
use super::format::{BlockWriter, header_region};
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::view::View;

/// Writes a snapshot of a view; the bytes are those of a snapshot file.
///
/// # Errors
/// The rows can't be read, or `to` refuses. What was written is no snapshot then, and its reader
/// notices.
pub(in crate::store) fn stream(
    inner: &Inner,
    view: &View,
    to: &mut dyn Write,
) -> Result<(), StoreError> {
    let mut header = header_of(inner, view)?;
    for family in Family::ALL {
        view.each_row(family, |_, _| {
            header.rows += 1;
            Ok(())
        })?;
    }
    let region = header_region(&header)?;
    let place = Path::new("the stream");
    to.write_all(&region).map_err(StoreError::file("write", place))?;
    let mut blocks = BlockWriter::new(to, place);
    for family in Family::ALL {
        view.each_row(family, |key, value| blocks.add(family, key, value))?;
    }
    let to = blocks.end(&region)?;
    to.flush().map_err(StoreError::file("write", place))
}
