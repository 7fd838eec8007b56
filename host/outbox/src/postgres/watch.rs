//! Waiting for inserts in PostgreSQL: notifications of the channel `signalbus`, which triggers send.
//!
//! Is never trusted before it has heard itself: behind a pooler, notifications get lost. Next: `watcher` in
//! `signalbus-relay`, which waits.

use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

use crate::database::{Purpose, Session, Watch};
use crate::error::Error;
use crate::sql::{Placeholder, Sql};

/// Notifications of the channel `signalbus`, over a connection of their own.
pub(super) struct Notifications(PgListener);

impl Notifications {
    const CHANNEL: &str = "signalbus";
    /// How long a notification may take that the relay sends itself.
    const PATIENCE: Duration = Duration::from_secs(3);

    pub(super) async fn listen(options: PgConnectOptions) -> Result<Self, Error> {
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(Self::CHANNEL).await?;
        Ok(Self(listener))
    }

    /// A pooler that shares connections lets LISTEN pass, and notifications get lost.
    pub(super) async fn prove(&mut self, session: &mut dyn Session) -> Result<(), Error> {
        session.begin(Purpose::Write).await?;
        session.rows(Sql::new(Placeholder::Numbered, "SELECT pg_notify('signalbus', '')::text")).await?;
        session.commit().await?;
        match tokio::time::timeout(Self::PATIENCE, self.0.recv()).await {
            Ok(heard) => Ok(heard.map(drop)?),
            Err(_) => Err(Self::unheard()),
        }
    }

    pub(super) fn unheard() -> Error {
        Error::Table(
            "LISTEN receives no notifications, so the relay polls; if there is a pooler in transaction mode, \
             set `database.url` to the server itself to use LISTEN"
                .into(),
        )
    }
}

impl Watch for Notifications {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        Box::pin(async move {
            match self.0.try_recv().await? {
                Some(heard) => Ok(Some(heard.payload().to_owned()).filter(|signal| !signal.is_empty())),
                None => Err(Error::Unreachable("the listening connection was lost".into())),
            }
        })
    }
}
