//! Where the client verbs find the gateway, and how they answer.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::client::{CallError, Client};
use super::output::{self, Column, Format};
use crate::config::{Environment, Secret};

/// Options of every client verb.
#[derive(Args, Clone, Debug)]
pub struct Connection {
    /// URLs of nodes, tried in turn, separated by commas [PEAT_URL; default http://127.0.0.1:8080]
    #[arg(long, global = true, value_delimiter = ',', value_name = "URL")]
    url: Vec<String>,
    /// Bearer token; visible to other users of this machine, so rather use a file or PEAT_ADMIN_TOKEN
    #[arg(long, global = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// File with the bearer token (PEAT_ADMIN_TOKEN_FILE)
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
}

/// The URL where nothing else is said.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// A client and the form of its output.
pub struct Session {
    /// Talks to the gateway.
    pub client: Client,
    /// How to print.
    pub format: Format,
}

impl Connection {
    /// The form of the output, for verbs that ask no node.
    pub fn format(&self) -> Format {
        self.output
    }

    /// Opens the session.
    ///
    /// # Errors
    /// A URL or the token's file can't be used.
    pub fn open(self, environment: &dyn Environment) -> Result<Session, CallError> {
        let variables = environment.variables();
        let mut urls = self.url;
        if urls.is_empty() {
            let given = variables.get("PEAT_URL").map_or(DEFAULT_URL, String::as_str);
            urls = given.split(',').map(|url| url.trim().to_owned()).collect();
        }
        let file = self.token_file.or_else(|| {
            let file = variables.get("PEAT_ADMIN_TOKEN_FILE").map(PathBuf::from);
            file.filter(|_| !variables.contains_key("PEAT_ADMIN_TOKEN"))
        });
        let token = match (self.token, file) {
            (Some(token), _) => Some(Secret::new(&token)),
            (None, Some(file)) => {
                let text = environment.read_file(&file).map_err(|error| {
                    CallError::Usage(format!("could not read {}: {error}", file.display()))
                })?;
                Some(first_token(&text))
            }
            (None, None) => variables.get("PEAT_ADMIN_TOKEN").map(|token| first_token(token)),
        };
        Ok(Session { client: Client::new(&urls, token)?, format: self.output })
    }
}

/// The gateway's own file may hold several tokens, one a line; all are good.
fn first_token(text: &str) -> Secret {
    Secret::new(text.trim().lines().next().unwrap_or_default().trim())
}

impl Session {
    /// Renders rows in the chosen form.
    pub fn rows(&self, columns: &[Column], rows: &[Value]) -> String {
        output::rows(self.format, columns, rows)
    }

    /// Renders one record in the chosen form.
    pub fn record(&self, columns: &[Column], record: &Value) -> String {
        output::record(self.format, columns, record)
    }
}
