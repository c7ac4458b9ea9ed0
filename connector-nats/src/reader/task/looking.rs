//! How the task sees that a consumer that it reads does its part: that acknowledgements arrive, and that it is not paused.
//!
//! Neither is told by what the consumer delivers. The server is asked while acknowledgements are due to arrive, and now and
//! then while nothing comes.

use std::time::SystemTime;

use futures::FutureExt;

use super::super::condition::Trouble;
use super::Task;
use crate::api::ConsumerInfo;
use crate::delivery::Incarnation;
use crate::error::Error;
use crate::found;

/// The consumer as the server sees it, and which it was.
pub(super) type Looked = (Incarnation, Result<Option<ConsumerInfo>, Error>);

impl Task {
    /// Asks about the consumer, if it is time to.
    pub(super) fn look(&mut self) {
        let now = self.now();
        let Some(live) = self.live.as_ref().filter(|_| self.looking.is_none()) else { return };
        if !self.floor.wants_look(now, self.arrived_at) {
            return;
        }
        let (api, stream, name) = (self.api.clone(), self.config.options.stream.clone(), live.name().to_owned());
        let incarnation = live.incarnation;
        let looking = async move { (incarnation, api.consumer_info(&stream, &name).await) };
        self.looking = Some(looking.boxed());
    }

    /// Takes note of what the server said.
    pub(super) fn looked(&mut self, (incarnation, answer): Looked) {
        let now = self.now();
        // What is missing or does not answer is found out elsewhere.
        let Ok(Some(info)) = answer else { return };
        if self.live.as_ref().is_none_or(|live| live.incarnation != incarnation) {
            return;
        }
        let floor = info.ack_floor.stream_seq;
        let stands = self.floor.stands_still(now, floor, info.num_ack_pending);
        let ailment = match found::paused_until(&info.config, SystemTime::now().into()) {
            Some(until) => Some(Error::Paused { consumer: info.name.clone(), until: until.to_owned() }),
            None => stands.then(|| Error::AcksLost { consumer: info.name.clone(), floor }),
        };
        self.ailment = ailment.map(Trouble::of);
        self.publish_condition();
        self.warn_of_trouble();
    }
}
