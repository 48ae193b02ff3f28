//! Letting those join a batch who are about to ask.

use tokio::sync::mpsc;

/// How many turns of the scheduler a batch waits for; the first that brings nothing ends it. What never ceases
/// to come must not keep a batch from going.
const TURNS_MAX: usize = 8;

/// Adds to a batch what comes within the next turns, up to `most` in all.
pub(super) async fn join_waiting<T>(
    waiting: &mut mpsc::Receiver<T>,
    batch: &mut Vec<T>,
    most: usize,
) {
    for _ in 0..TURNS_MAX {
        tokio::task::yield_now().await;
        let joined = batch.len();
        while batch.len() < most
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
        if batch.len() == joined {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::{TURNS_MAX, join_waiting};

    #[tokio::test]
    async fn what_comes_in_every_turn_joins_and_doesnt_keep_the_batch_from_going() {
        let (sender, mut waiting) = mpsc::channel(1_000);
        // One in each turn, until the channel is full.
        let coming = tokio::spawn(async move {
            while sender.try_send(()).is_ok() {
                tokio::task::yield_now().await;
            }
        });
        let mut batch = Vec::new();
        join_waiting(&mut waiting, &mut batch, 1_000).await;
        coming.abort();
        assert!((2..=2 * TURNS_MAX).contains(&batch.len()), "{} joined", batch.len());
    }

    #[tokio::test]
    async fn a_full_batch_goes() {
        let (sender, mut waiting) = mpsc::channel(10);
        for number in 0..10 {
            sender.try_send(number).unwrap();
        }
        let mut batch = Vec::new();
        join_waiting(&mut waiting, &mut batch, 4).await;
        assert_eq!(batch, [0, 1, 2, 3]);
    }
}
