//! Follows the file sink: counts lines and keeps the newest ones.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Newest lines that are kept for the screen.
const LINES_KEPT: usize = 200;
/// Most bytes read from one file at once; the rest is read next time.
const READ_BYTES_MAX: u64 = 4 << 20;
/// Directories below the root that are entered; sinks lie less deep.
const DEPTH_MAX: usize = 4;

/// How far each file was read.
#[derive(Debug)]
pub(super) struct SinkTail {
    root: PathBuf,
    files: BTreeMap<PathBuf, Position>,
    lines: VecDeque<String>,
    total: u64,
}

#[derive(Debug, Default)]
struct Position {
    offset: u64,
    /// The begin of a line whose end isn't written yet.
    unfinished: Vec<u8>,
}

impl SinkTail {
    /// Follows all files below `root`.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new(), lines: VecDeque::new(), total: 0 }
    }

    /// Reads what was written since; a file that can't be read now is tried again next time.
    pub(super) fn poll(&mut self) {
        let mut found = Vec::new();
        find(&self.root, DEPTH_MAX, &mut found);
        self.files.retain(|path, _| found.contains(path));
        for path in found {
            let position = self.files.entry(path.clone()).or_default();
            let Ok(new) = read_new(&path, position) else { continue };
            for line in new {
                self.total += 1;
                self.lines.push_back(line);
                if self.lines.len() > LINES_KEPT {
                    self.lines.pop_front();
                }
            }
        }
    }

    /// Whole lines seen so far, earlier runs' included.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The newest lines, oldest first.
    pub(super) fn newest(&self, count: usize) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).map(String::as_str)
    }
}

/// All regular files, those with a shorter history last changed last.
fn find(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => find(&entry.path(), depth - 1, found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn read_new(path: &Path, position: &mut Position) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < position.offset {
        // A torn last line was cut; the sink goes on from a line's begin.
        position.offset = file.metadata()?.len();
        position.unfinished.clear();
    }
    file.seek(SeekFrom::Start(position.offset))?;
    let mut bytes = std::mem::take(&mut position.unfinished);
    position.offset += file.take(READ_BYTES_MAX).read_to_end(&mut bytes)? as u64;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    position.unfinished = bytes.split_off(whole);
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn whole_lines_are_counted_once_across_files_and_polls() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("demo/stream");
        std::fs::create_dir_all(&directory).unwrap();
        let mut tail = SinkTail::new(root.path().to_owned());
        tail.poll();
        assert_eq!(tail.total(), 0);
        let mut first = File::create(directory.join("1.ndjson")).unwrap();
        first.write_all(b"a\nb\nunfini").unwrap();
        tail.poll();
        assert_eq!(tail.total(), 2);
        first.write_all(b"shed\n").unwrap();
        std::fs::write(directory.join("2.ndjson"), "c\n").unwrap();
        tail.poll();
        assert_eq!(tail.total(), 4);
        assert_eq!(tail.newest(2).collect::<Vec<_>>(), ["unfinished", "c"]);
    }

    #[test]
    fn a_cut_line_is_not_counted() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("1.ndjson");
        std::fs::write(&path, "a\ntorn").unwrap();
        let mut tail = SinkTail::new(root.path().to_owned());
        tail.poll();
        std::fs::write(&path, "a\n").unwrap();
        tail.poll();
        std::fs::write(&path, "a\nb\n").unwrap();
        tail.poll();
        assert_eq!(tail.newest(9).collect::<Vec<_>>(), ["a", "b"]);
    }
}
