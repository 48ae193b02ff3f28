//! Replacing the state by a snapshot.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peat_gateway_state::{Family, codec};
use prost::Message;
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter, WriteBatch};

use super::SnapshotData;
use super::format::SnapshotReader;
use crate::blocking::blocking;
use crate::raft::SnapshotMeta;
use crate::store::Inner;
use crate::store::error::StoreError;
use crate::store::flusher::MarkChange;
use crate::store::layout::{ColumnOptions, Database, META, key, state_column};
use crate::store::steps::step;
use crate::store::view::Position;
use crate::wire::stored::{log_id_to_stored, stored_membership_to_stored};

/// A table file is ended once it has this many bytes.
const TABLE_BYTES: u64 = 64 << 20;

/// Replaces the state by a snapshot. The old state or the new one is there after a crash.
///
/// # Errors
/// `Snapshot` where the snapshot isn't what `meta` says: the state is as before.
pub(in crate::store) async fn install(
    inner: &Arc<Inner>,
    meta: &SnapshotMeta,
    data: SnapshotData,
) -> Result<(), StoreError> {
    let file = data.into_file().await?;
    if file.meta()? != *meta {
        return Err(StoreError::Snapshot("it is another one than was announced".to_owned()));
    }
    let old_generation = inner.view().position().generation;
    let position = Position {
        applied: file.applied(),
        membership: file.membership()?,
        hash: file.hash()?,
        generation: old_generation + 1,
    };
    let load = {
        let (inner, file) = (inner.clone(), file.clone());
        let generation = position.generation;
        blocking(move || load(&inner, file.path(), generation))
    };
    load.await.map_err(|_| StoreError::Panicked("the installer of a snapshot"))??;
    switch(inner, &position).await?;
    inner.forget_rows();
    inner.publish(position)?;
    step!(InstallPublished);
    inner.changes.send_modify(|changes| {
        // Anything may have changed.
        let index = file.applied().map_or(0, |id| id.index);
        changes.applied = index;
        changes.configuration = index;
        changes.journal = index;
        changes.cursors = index;
    });
    drop_generation(&inner.database, old_generation)
}

/// Loads all rows into the column families of a new generation, durably.
fn load(inner: &Inner, path: &Path, generation: u64) -> Result<(), StoreError> {
    // An install that failed before may have left them.
    drop_generation(&inner.database, generation)?;
    let directory = inner.temporary_path();
    fs::create_dir(&directory).map_err(StoreError::file("create", &directory))?;
    step!(InstallFolderMade);
    let reader = SnapshotReader::open(path);
    let loaded = reader.and_then(|reader| {
        load_rows(&inner.database, &inner.columns, generation, &directory, |add| {
            reader.each_row(|family, _, key, value| add(family, key, value))
        })
    });
    if loaded.is_err() {
        drop_generation(&inner.database, generation)?;
    }
    fs::remove_dir_all(&directory).map_err(StoreError::file("remove", &directory))?;
    step!(InstallFolderRemoved);
    loaded
}

/// Takes one row; families and keys come in order.
pub(crate) type AddRow<'a> = dyn FnMut(Family, &[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// Creates the column families of a generation and loads into them what `fill` adds.
///
/// The table files are made in `directory` and moved from there.
pub(in crate::store) fn load_rows(
    database: &Database,
    columns: &ColumnOptions,
    generation: u64,
    directory: &Path,
    fill: impl FnOnce(&mut AddRow<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let options = Family::ALL.map(|family| columns.of(&state_column(family, generation)));
    for (family, options) in Family::ALL.into_iter().zip(&options) {
        let created = database.db.create_cf(state_column(family, generation), options);
        created.map_err(StoreError::database("create column families for a snapshot"))?;
        step!(InstallColumnCreated);
    }
    let mut tables = Tables { directory, open: None, finished: Vec::new() };
    fill(&mut |family, key, value| {
        let at = Family::ALL.iter().position(|other| *other == family).unwrap_or_default();
        tables.add(&options[at], family, key, value)
    })?;
    tables.end_table()?;
    let mut ingest = IngestExternalFileOptions::default();
    ingest.set_move_files(true);
    for family in Family::ALL {
        let paths: Vec<&PathBuf> =
            tables.finished.iter().filter(|(f, _)| *f == family).map(|(_, path)| path).collect();
        if paths.is_empty() {
            continue;
        }
        let column = database.column(&state_column(family, generation))?;
        database
            .db
            .ingest_external_file_cf_opts(&column, &ingest, paths)
            .map_err(StoreError::database("load the tables of a snapshot"))?;
        step!(InstallTableLoaded);
    }
    Ok(())
}

/// Table files in the making.
struct Tables<'o> {
    directory: &'o Path,
    open: Option<(Family, PathBuf, SstFileWriter<'o>)>,
    finished: Vec<(Family, PathBuf)>,
}

impl<'o> Tables<'o> {
    fn add(
        &mut self,
        options: &'o Options,
        family: Family,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        let full = |writer: &SstFileWriter<'_>| writer.file_size() >= TABLE_BYTES;
        if self.open.as_ref().is_some_and(|(f, _, writer)| *f != family || full(writer)) {
            self.end_table()?;
        }
        let (_, _, writer) = match &mut self.open {
            Some(open) => open,
            none => {
                let path = self.directory.join(format!("{}.sst", self.finished.len()));
                let writer = SstFileWriter::create(options);
                writer.open(&path).map_err(StoreError::database("create a table file"))?;
                step!(InstallTableBegun);
                none.insert((family, path, writer))
            }
        };
        writer.put(key, value).map_err(StoreError::database("write a table file"))
    }

    fn end_table(&mut self) -> Result<(), StoreError> {
        if let Some((family, path, mut writer)) = self.open.take() {
            writer.finish().map_err(StoreError::database("finish a table file"))?;
            step!(InstallTableFinished);
            self.finished.push((family, path));
        }
        Ok(())
    }
}

/// The one write that makes the new generation the state; durable when it returns.
async fn switch(inner: &Inner, position: &Position) -> Result<(), StoreError> {
    let mut batch = WriteBatch::default();
    {
        let meta = inner.database.column(META)?;
        batch.put_cf(&meta, key::GENERATION, position.generation.to_be_bytes());
        match &position.applied {
            Some(id) => batch.put_cf(&meta, key::APPLIED, log_id_to_stored(id).encode_to_vec()),
            None => batch.delete_cf(&meta, key::APPLIED),
        }
        let membership = stored_membership_to_stored(&position.membership).encode_to_vec();
        batch.put_cf(&meta, key::MEMBERSHIP, membership);
        batch.put_cf(&meta, key::STATE_HASH, codec::encode(&position.hash));
        inner.database.write(batch, "switch to the snapshot")?;
    }
    step!(SwitchWritten);
    inner.flusher.flush(MarkChange::None).await?;
    step!(SwitchSynced);
    Ok(())
}

/// Drops the column families of a generation, those that are there. Views of it stay readable.
pub(in crate::store) fn drop_generation(
    database: &Database,
    generation: u64,
) -> Result<(), StoreError> {
    for family in Family::ALL {
        let column = state_column(family, generation);
        if database.db.cf_handle(&column).is_some() {
            database.db.drop_cf(&column).map_err(StoreError::database("drop an old generation"))?;
            step!(ColumnDropped);
        }
    }
    Ok(())
}
