//! What is asked of a server, and over what.

use clap::ValueEnum;

/// A workload. All of them ask for 1 KiB of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Hits over HTTP/1.1
    #[value(name = "h1-1k")]
    H1,
    /// Hits over HTTP/2 with prior knowledge
    #[value(name = "h2-1k")]
    H2,
    /// Hits over HTTP/1.1 and TLS
    #[value(name = "tls-h1-1k")]
    TlsH1,
    /// Hits over HTTP/2 and TLS
    #[value(name = "h2tls-1k")]
    TlsH2,
    /// Unique URLs over HTTP/1.1: forwarded and stored
    #[value(name = "miss")]
    Miss,
    /// One URL past the cache over HTTP/1.1: forwarded and not stored
    #[value(name = "proxy")]
    Proxy,
}

/// The version of HTTP that the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Workload {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 6] = [Self::H1, Self::H2, Self::TlsH1, Self::TlsH2, Self::Miss, Self::Proxy];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1-1k",
            Self::H2 => "h2-1k",
            Self::TlsH1 => "tls-h1-1k",
            Self::TlsH2 => "h2tls-1k",
            Self::Miss => "miss",
            Self::Proxy => "proxy",
        }
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::H1 | Self::TlsH1 | Self::Miss | Self::Proxy => Protocol::Http1,
            Self::H2 | Self::TlsH2 => Protocol::Http2,
        }
    }

    pub(crate) fn is_tls(self) -> bool {
        match self {
            Self::TlsH1 | Self::TlsH2 => true,
            Self::H1 | Self::H2 | Self::Miss | Self::Proxy => false,
        }
    }

    /// Answered without asking the origin.
    pub(crate) fn is_hit(self) -> bool {
        !matches!(self, Self::Miss | Self::Proxy)
    }

    /// Every request is for another URL.
    pub(crate) fn is_unique(self) -> bool {
        self == Self::Miss
    }

    /// What is asked for, where it is one URL.
    pub(crate) fn path(self) -> &'static str {
        if self == Self::Proxy { "/pass/1k" } else { "/1k" }
    }

    /// Connections that are kept busy.
    pub(crate) fn connections(self) -> usize {
        match self.protocol() {
            Protocol::Http1 => 64,
            Protocol::Http2 => 16,
        }
    }

    /// Requests under way on each of them.
    pub(crate) fn streams(self) -> usize {
        match self.protocol() {
            Protocol::Http1 => 1,
            Protocol::Http2 => 32,
        }
    }
}
