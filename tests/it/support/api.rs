//! A client of the HTTP API that tells apart what happened, what didn't, and what isn't known.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::cluster::ADMIN_TOKEN;

/// A client of one or more nodes.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    urls: Vec<String>,
    next: std::sync::Arc<AtomicUsize>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers of interest.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Acknowledged.
    Done,
    /// Nothing happened.
    Refused(String),
    /// It may have happened.
    Unknown(String),
}

/// How long a read may wait for a leader.
const READ_LIMIT: Duration = Duration::from_secs(30);

impl Api {
    /// A client of these nodes.
    pub fn new(urls: Vec<String>) -> Self {
        Self::with_timeout(urls, Duration::from_secs(40))
    }

    /// A client of these nodes that gives up earlier than they do.
    pub fn with_timeout(urls: Vec<String>, timeout: Duration) -> Self {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(timeout)
            .no_proxy()
            .build()
            .expect("a client");
        Self { client, urls, next: std::sync::Arc::default() }
    }

    /// Sends one request to one node, as admin.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let url = &self.urls[self.next.fetch_add(1, Ordering::Relaxed) % self.urls.len()];
        let mut request = self.client.request(method, format!("{url}{path}"));
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            request = request.bearer_auth(ADMIN_TOKEN);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response.text().await.map_err(|error| error.to_string())?;
        Ok(Answer { status, headers, body })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(Method::GET, path, None, &[]).await
    }

    /// GET that must give 200 and JSON; tries every node once.
    pub async fn get_json(&self, path: &str) -> Result<Value, String> {
        let mut last = String::new();
        for _ in 0..self.urls.len() {
            match self.get(path).await {
                Ok(answer) if answer.status == 200 => return Ok(answer.json()),
                Ok(answer) => last = format!("{} {}", answer.status, answer.body),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// GET that gives 200 and JSON in the end: while a leader is found, a read is refused.
    pub async fn read(&self, path: &str) -> Value {
        super::wait_for(&format!("GET {path}"), READ_LIMIT, || self.get_json(path)).await
    }

    /// POST that must give 200 or 201 within a minute; retried with one idempotency key.
    pub async fn create(&self, path: &str, body: &Value) -> Value {
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("random bytes");
        let key = hex::encode(key);
        super::wait_for(&format!("POST {path}"), Duration::from_secs(60), || async {
            let answer =
                self.send(Method::POST, path, Some(body), &[("idempotency-key", &key)]).await?;
            match answer.status {
                200 | 201 => Ok(answer.json()),
                status => Err(format!("{status} {}", answer.body)),
            }
        })
        .await
    }

    /// PATCH once, without a retry; says what became of it.
    pub async fn patch_once(&self, path: &str, body: &Value) -> Written {
        match self.send(Method::PATCH, path, Some(body), &[]).await {
            Ok(answer) if answer.status == 200 => Written::Done,
            Ok(answer) if answer.status == 504 || answer.status == 500 => {
                Written::Unknown(answer.body)
            }
            Ok(answer) => Written::Refused(format!("{} {}", answer.status, answer.body)),
            Err(error) => Written::Unknown(error),
        }
    }

    /// All journalled events of an organisation, in sequence.
    pub async fn journal(&self, org: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let after = events.last().map_or(0, |event: &Value| {
                event["sequence"].as_u64().expect("every event has a sequence")
            });
            let page = super::wait_for("a page of the journal", Duration::from_secs(30), || {
                let path = format!("/orgs/{org}/journal?after={after}&limit=1000");
                async move { self.get_json(&path).await }
            })
            .await;
            let page = page.as_array().expect("a list of events").clone();
            if page.is_empty() {
                return events;
            }
            events.extend(page);
        }
    }
}
