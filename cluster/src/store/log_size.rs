//! How many bytes the log has.

use rocksdb::ReadOptions;

use super::Store;
use super::error::StoreError;
use super::layout::LOG;

/// Bytes between two marks.
const MARK_BYTES: u64 = 1 << 20;

impl Store {
    /// The first and the last index of the log; the first is above the last where it is empty.
    pub(crate) fn log_bounds(&self) -> (u64, u64) {
        let log = self.inner.log();
        let last = log.last_id().map_or(0, |id| id.index);
        (log.first.unwrap_or(last + 1), last)
    }

    /// Reads the log through: rising sums of its bytes, each with the last index that it contains. Blocks.
    pub(crate) fn measure_log(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let (first, _) = self.log_bounds();
        let mut rows =
            self.inner.database.db.raw_iterator_cf_opt(&self.inner.database.column(LOG)?, options);
        rows.seek(first.to_be_bytes());
        let mut marks = Vec::new();
        let (mut sum, mut marked, mut last) = (0, 0, None);
        while let Some((key, value)) = rows.item() {
            sum += value.len() as u64;
            last = key.try_into().ok().map(u64::from_be_bytes);
            if let Some(index) = last.filter(|_| sum - marked >= MARK_BYTES) {
                marks.push((index, sum));
                marked = sum;
            }
            rows.next();
        }
        rows.status().map_err(StoreError::database("read the log"))?;
        if let Some(index) = last.filter(|_| sum > marked) {
            marks.push((index, sum));
        }
        Ok(marks)
    }
}
