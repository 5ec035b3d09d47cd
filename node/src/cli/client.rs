//! A small client of the admin API: one call, one connection, plain HTTP.
//!
//! Not here: what is called and shown (`purge`, `plugin`, `status`).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::args::ClientOptions;
use crate::admin::Problem;

/// Time until a connection stands.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Time for a whole call: longer than the node's own longest deadline, so that its explanation arrives.
const CALL_DEADLINE: Duration = Duration::from_secs(130);
/// Size of an answer. The longest is a listing of plugins.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Where the token may also stand.
const TOKEN_VARIABLE: &str = "BRIM_TOKEN";

/// Why there is no answer to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("--admin {0:?} is not a URL like http://127.0.0.1:9900")]
    BadUrl(String),
    #[error("--admin {0:?}: the admin API speaks plain HTTP; use http://, over a tunnel where the way is not safe")]
    Https(String),
    #[error(
        "no admin token: give --token, --token-file or {TOKEN_VARIABLE}; the node keeps its own in DATA_DIR/admin.token"
    )]
    NoToken,
    #[error("the admin token has characters that a token cannot have")]
    BadToken,
    #[error("token file {}", path.display())]
    TokenFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no node answers at {address}; is it running, and is --admin right?")]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the call to {address} took longer than {CALL_DEADLINE:?}")]
    Deadline { address: String },
    #[error("the connection to {address} broke")]
    Broken {
        address: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{address} answers, but not as the admin API of brim ({status})")]
    NotBrim { address: String, status: StatusCode },
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    #[error("no async runtime")]
    Runtime(#[source] io::Error),
    #[error("the request cannot be written")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ClientError {
    /// Exit status of the command. No `_` arm: a new error has to choose.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::BadUrl(_) | Self::Https(_) | Self::NoToken | Self::BadToken => 2,
            Self::TokenFile { .. }
            | Self::Connect { .. }
            | Self::Deadline { .. }
            | Self::Broken { .. }
            | Self::NotBrim { .. }
            | Self::Refused(_)
            | Self::Runtime(_)
            | Self::Request(_) => 1,
        }
    }
}

/// A node's admin API.
pub(super) struct Client {
    runtime: tokio::runtime::Runtime,
    /// `host:port`, to connect to.
    address: String,
    /// As in the URL, for `Host`.
    authority: HeaderValue,
    /// What stands before every path, without a slash at its end.
    base: String,
    authorization: HeaderValue,
}

impl Client {
    pub(super) fn new(options: &ClientOptions) -> Result<Client, ClientError> {
        let bad_url = || ClientError::BadUrl(options.admin.clone());
        let url: Uri = options.admin.parse().map_err(|_| bad_url())?;
        match url.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(ClientError::Https(options.admin.clone())),
            _ => return Err(bad_url()),
        }
        let authority = url.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(bad_url)?;
        if url.query().is_some() || authority.as_str().contains('@') {
            return Err(bad_url());
        }
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", token(options)?)).map_err(|_| ClientError::BadToken)?;
        authorization.set_sensitive(true);
        Ok(Client {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(ClientError::Runtime)?,
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            authority: HeaderValue::try_from(authority.as_str()).map_err(|_| bad_url())?,
            base: url.path().trim_end_matches('/').to_owned(),
            authorization,
        })
    }

    pub(super) fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.call(Method::GET, path, Bytes::new(), "application/json")
    }

    pub(super) fn post<A: DeserializeOwned>(&self, path: &str, content: &impl Serialize) -> Result<A, ClientError> {
        self.post_once(path, content, None)
    }

    /// The same, made once however often it is sent with this idempotency key.
    pub(super) fn post_once<A: DeserializeOwned>(
        &self,
        path: &str,
        content: &impl Serialize,
        idempotency_key: Option<&str>,
    ) -> Result<A, ClientError> {
        let content = serde_json::to_vec(content).map_err(|error| ClientError::Request(error.into()))?;
        let mut request = self.request(Method::POST, path, "application/json");
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        self.answer(request, content.into())
    }

    pub(super) fn delete<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.call(Method::DELETE, path, Bytes::new(), "application/json")
    }

    pub(super) fn put<A: DeserializeOwned>(&self, path: &str, component: Bytes) -> Result<A, ClientError> {
        self.call(Method::PUT, path, component, "application/wasm")
    }

    fn call<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content: Bytes,
        kind: &str,
    ) -> Result<A, ClientError> {
        self.answer(self.request(method, path, kind), content)
    }

    fn request(&self, method: Method, path: &str, kind: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, &self.authorization)
            .header(ACCEPT, "application/json, application/problem+json")
            .header(CONTENT_TYPE, kind)
    }

    fn answer<A: DeserializeOwned>(&self, request: http::request::Builder, content: Bytes) -> Result<A, ClientError> {
        let request = request.body(Full::new(content)).map_err(|error| ClientError::Request(error.into()))?;
        let exchange = async { tokio::time::timeout(CALL_DEADLINE, self.exchange(request)).await };
        let late = |_| ClientError::Deadline { address: self.address.clone() };
        let (status, answer) = self.runtime.block_on(exchange).map_err(late)??;
        let not_brim = || ClientError::NotBrim { address: self.address.clone(), status };
        if status.is_success() {
            serde_json::from_slice(&answer).map_err(|_| not_brim())
        } else {
            Err(ClientError::Refused(Box::new(serde_json::from_slice(&answer).map_err(|_| not_brim())?)))
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        let unreachable = |source| ClientError::Connect { address: self.address.clone(), source };
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(&self.address));
        let stream = connecting.await.map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?.map_err(unreachable)?;
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Broken {
            address: self.address.clone(),
            source,
        };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| broken(error.into()))?;
        // Ends with the answer, or with the runtime.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(broken)?;
        Ok((status, answer.to_bytes()))
    }
}

/// `--token`, else `--token-file`, else the environment.
fn token(options: &ClientOptions) -> Result<String, ClientError> {
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).map_err(|source| ClientError::TokenFile { path: path.clone(), source })?
        }
        (None, None) => std::env::var(TOKEN_VARIABLE).unwrap_or_default(),
    };
    let token = token.trim();
    if token.is_empty() { Err(ClientError::NoToken) } else { Ok(token.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(admin: &str) -> Result<Client, ClientError> {
        let token = Some("a-token".to_owned());
        Client::new(&ClientOptions { admin: admin.to_owned(), token, token_file: None, json: false })
    }

    #[test]
    fn admin_urls() {
        let plain = client("http://[::1]:9900/behind/a/proxy/").expect("a URL");
        assert_eq!((plain.address.as_str(), plain.base.as_str()), ("[::1]:9900", "/behind/a/proxy"));
        assert_eq!(client("http://node").expect("a URL").address, "node:80");
        assert!(matches!(client("https://node"), Err(ClientError::Https(_))));
        for wrong in ["node:9900", "/v1", "", "http://", "http://user@node/", "http://node/?a", "ftp://node/"] {
            assert!(matches!(client(wrong), Err(ClientError::BadUrl(_))), "{wrong}");
        }
    }

    #[test]
    fn a_token_file_is_trimmed_and_must_exist() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.token");
        let options =
            |token_file| ClientOptions { admin: String::new(), token: None, token_file: Some(token_file), json: false };
        assert!(matches!(token(&options(path.clone())), Err(ClientError::TokenFile { .. })));
        std::fs::write(&path, "secret\n").expect("written");
        assert_eq!(token(&options(path.clone())).expect("read"), "secret");
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(token(&options(path)), Err(ClientError::NoToken)));
    }
}
