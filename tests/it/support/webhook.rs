//! A webhook receiver that verifies signatures with an independent implementation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A receiver on a free loopback port.
pub struct Receiver {
    /// Where sinks deliver to.
    pub url: String,
    state: Arc<Seen>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    secret: Mutex<Option<String>>,
    accepted: Mutex<Vec<(String, Vec<u8>)>>,
    rejected: Mutex<Vec<String>>,
    /// Whether answers are kept back, and how many are.
    held: watch::Sender<bool>,
    waiting: AtomicUsize,
}

impl Receiver {
    /// Starts it; requests are refused until [`Receiver::trust`] names the secret.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1").await
    }

    /// The same at another address than loopback.
    pub async fn start_at(host: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let url = format!("http://{}/events", listener.local_addr().expect("its address"));
        let state = Arc::new(Seen::default());
        let app = Router::new().route("/events", post(receive)).with_state(state.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("the receiver serves");
        });
        Self { url, state, server }
    }

    /// Sets the secret that signatures must be made with.
    pub fn trust(&self, secret: &str) {
        *self.state.secret.lock().expect("no panic under the lock") = Some(secret.to_owned());
    }

    /// Keeps back the answers to deliveries from now on, which count as arrived all the same.
    pub fn hold(&self) {
        self.state.held.send_replace(true);
    }

    /// Lets all answers go.
    pub fn release(&self) {
        self.state.held.send_replace(false);
    }

    /// How many deliveries wait for their answer.
    pub fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::SeqCst)
    }

    /// What arrived with a good signature: webhook id and body, in order of arrival.
    pub fn accepted(&self) -> Vec<(String, Vec<u8>)> {
        self.state.accepted.lock().expect("no panic under the lock").clone()
    }

    /// Why requests were refused, once a secret was set.
    pub fn rejected(&self) -> Vec<String> {
        self.state.rejected.lock().expect("no panic under the lock").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(secret) = seen.secret.lock().expect("no panic under the lock").clone() else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    let verdict = Webhook::new(&secret)
        .map_err(|error| error.to_string())
        .and_then(|webhook| webhook.verify(&body, &headers).map_err(|error| error.to_string()));
    match verdict {
        Ok(()) => {
            let id = headers["webhook-id"].to_str().unwrap_or_default().to_owned();
            seen.accepted.lock().expect("no panic under the lock").push((id, body.to_vec()));
            seen.waiting.fetch_add(1, Ordering::SeqCst);
            // The receiver ends with the test, so the sender is there.
            seen.held.subscribe().wait_for(|held| !held).await.ok();
            seen.waiting.fetch_sub(1, Ordering::SeqCst);
            StatusCode::NO_CONTENT
        }
        Err(error) => {
            seen.rejected.lock().expect("no panic under the lock").push(error);
            StatusCode::UNAUTHORIZED
        }
    }
}
