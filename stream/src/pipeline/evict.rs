//! Which entries of a cache are forgotten: those that have not changed for the longest time.
//!
//! An entry may be forgotten once its newest change is applied, because it is read from the state
//! when it comes up again. A vnode of which nothing was forgotten knows its misses: an entry that
//! is not in memory is not in the state either. An entry that is known not to be in the state can
//! be forgotten without giving that up.

use weir_common::ids::VNODES;

use super::groups::Group;

/// Epochs that ended, and what is known of the state.
#[derive(Debug)]
pub(super) struct Clock {
    /// The number of the present epoch.
    pub(super) epoch: u32,
    /// The first epoch whose changes are not applied.
    applied: u32,
    /// For each vnode, whether an entry that is not in memory is not in the state either.
    knows_misses: Vec<bool>,
}

impl Clock {
    pub(super) fn new(knows_misses: bool) -> Clock {
        Clock { epoch: 0, applied: 0, knows_misses: vec![knows_misses; usize::from(VNODES)] }
    }

    pub(super) fn end_epoch(&mut self) {
        self.epoch += 1;
    }

    pub(super) fn applied(&mut self) {
        assert!(self.applied < self.epoch, "writes are applied after they are taken");
        self.applied += 1;
    }

    pub(super) fn knows_misses(&self, vnode: u16) -> bool {
        self.knows_misses[usize::from(vnode)]
    }

    /// Notes that an entry of a vnode was forgotten.
    pub(super) fn forget(&mut self, vnode: u16) {
        self.knows_misses[usize::from(vnode)] = false;
    }

    /// Returns true if an entry may be forgotten that last changed in this epoch.
    pub(super) fn is_applied(&self, changed: u32) -> bool {
        changed < self.applied
    }
}

/// The entries that are forgotten: those that last changed before an epoch, and some of those that
/// changed in it.
#[derive(Debug)]
pub(super) struct Victims {
    epoch: u32,
    some: usize,
}

impl Victims {
    /// Chooses a number of entries, given the epochs in which those that may go last changed.
    pub(super) fn choose(mut changed: Vec<u32>, count: usize) -> Victims {
        if count >= changed.len() {
            return Victims { epoch: u32::MAX, some: 0 };
        }
        let (before, epoch, _) = changed.select_nth_unstable(count);
        let (epoch, earlier) = (*epoch, before.iter().filter(|changed| **changed < *epoch).count());
        Victims { epoch, some: count - earlier }
    }

    /// Returns true for an entry that is forgotten.
    pub(super) fn take(&mut self, changed: u32) -> bool {
        if changed == self.epoch && self.some > 0 {
            self.some -= 1;
            return true;
        }
        changed < self.epoch
    }
}

/// Keeps the elements with these numbers, which ascend.
pub(super) fn retain<T>(column: &mut Vec<T>, kept: &[Group]) {
    for (place, number) in kept.iter().enumerate() {
        column.swap(place, *number as usize);
    }
    column.truncate(kept.len());
    if column.capacity() > 2 * kept.len() {
        column.shrink_to_fit();
    }
}

/// The bytes of a column.
pub(super) fn bytes_of<T>(column: &Vec<T>) -> usize {
    column.capacity() * size_of::<T>()
}

/// The new number of each entry if those with `kept` stay; [`Group::MAX`] for those that go.
pub(super) fn renumber(count: usize, kept: &[Group]) -> Vec<Group> {
    let mut numbers = vec![Group::MAX; count];
    for (number, old) in (0..).zip(kept) {
        numbers[*old as usize] = number;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_in_the_order_of_their_changes() {
        let changed = vec![3, 1, 2, 1, 3, 3];
        for count in 0..=changed.len() {
            let mut victims = Victims::choose(changed.clone(), count);
            let mut gone: Vec<u32> = changed.iter().copied().filter(|changed| victims.take(*changed)).collect();
            gone.sort_unstable();
            assert_eq!(gone, [1, 1, 2, 3, 3, 3][..count]);
        }
    }

    #[test]
    fn a_column_keeps_the_elements_that_are_named() {
        let mut column = vec!["a", "b", "c", "d", "e"];
        retain(&mut column, &[1, 2, 4]);
        assert_eq!(column, ["b", "c", "e"]);
        assert_eq!(renumber(5, &[1, 2, 4]), [Group::MAX, 0, 1, Group::MAX, 2]);
    }
}
