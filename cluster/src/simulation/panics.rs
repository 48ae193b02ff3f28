//! Panics of tasks, which the runtime would swallow.

use std::sync::{Mutex, PoisonError};

static PANICKED: Mutex<Option<String>> = Mutex::new(None);

/// From now on panics are noted, and printed as ever.
pub(super) fn watch() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let mut noted = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get_or_insert_with(|| panic.to_string());
        drop(noted);
        before(panic);
    }));
}

/// The first panic since the last call.
pub(super) fn take() -> Option<String> {
    PANICKED.lock().unwrap_or_else(PoisonError::into_inner).take()
}
