//! The ring of one shard and the operations it carries.

use super::buffers::Buffers;
use super::deliveries::{Deliveries, HandedDelivery};
use super::sends::Sends;
use crate::probe::Features;
use io_uring::register::Restriction;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Entries of the submission queue. More operations are submitted in portions.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue: all that can be in flight at once.
pub const COMPLETIONS: u32 = 8192;

/// Completions after which nobody waits for more.
const GATHERED: usize = 32;

/// `IORING_REGISTER_SYNC_CANCEL` (linux/io_uring.h): what a ring ends with.
const SYNC_CANCEL: u8 = 24;

/// Descriptors a ring works on, in the order of registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// The tap queue.
    Tap = 0,
    /// The socket on the mesh port: it receives, and sends for links of one port.
    Mesh = 1,
    /// The socket whose port is the lane's source.
    Lane = 2,
    /// The eventfd behind which commands wait.
    Wake = 3,
}

/// What a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Datagrams arrived.
    Receive,
    /// A frame came from the tap.
    Read,
    /// A send of this slot was done.
    Send(u16),
    /// A write out of receive buffers was done: the first, and how many are chained to it.
    Write(u16, u16),
    /// A write of this handed-over datagram was done.
    WriteHanded(u16),
    /// Commands or handed-over datagrams wait.
    Wake,
}

impl Operation {
    const fn to_user_data(self) -> u64 {
        match self {
            Self::Receive => 1 << 32,
            Self::Read => 2 << 32,
            Self::Send(slot) => 3 << 32 | slot as u64,
            Self::Write(buffer, more) => 4 << 32 | (more as u64) << 16 | buffer as u64,
            Self::WriteHanded(slot) => 5 << 32 | slot as u64,
            Self::Wake => 6 << 32,
        }
    }

    fn from_user_data(data: u64) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half holds twice 16 bits")]
        let (low, high) = (data as u16, (data >> 16) as u16);
        match data >> 32 {
            1 => Some(Self::Receive),
            2 => Some(Self::Read),
            3 => Some(Self::Send(low)),
            4 => Some(Self::Write(low, high)),
            5 => Some(Self::WriteHanded(low)),
            6 => Some(Self::Wake),
            _ => None,
        }
    }
}

/// A finished operation.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// Which.
    pub operation: Operation,
    /// Bytes, or a negative errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// The provided buffer that was filled, if one was.
    #[must_use]
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// True if a multishot operation goes on.
    #[must_use]
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }
}

/// A ring with its registered files. Dropped before the memory lent to it.
pub struct Ring {
    ring: IoUring,
    /// Value the wake-up read writes; boxed for a stable address.
    wake: Box<u64>,
    receive_header: Box<libc::msghdr>,
    features: Features,
    overflows: u32,
}

// SAFETY: the raw pointers inside `msghdr` are null; the ring is made by one
// thread and then used by one shard thread only (it is made disabled, and
// SINGLE_ISSUER binds it to the thread that enables it).
unsafe impl Send for Ring {}

impl Ring {
    /// A ring for one shard, not yet enabled, that uses no more of the kernel than `features`.
    ///
    /// # Errors
    /// The kernel's: no `io_uring` (`ENOSYS`, `EPERM`), or no memory for it.
    pub fn new(completions: u32, features: Features) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_r_disabled()
            .setup_cqsize(completions)
            .build(SUBMISSIONS.min(completions))?;
        // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
        let mut receive_header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        receive_header.msg_namelen = super::address::RAW_ADDRESS_LEN as u32;
        receive_header.msg_controllen = super::received::CONTROL_LEN;
        Ok(Self { ring, wake: Box::new(0), receive_header, features, overflows: 0 })
    }

    /// Registers the files in the order of [`File`]. The ring keeps references
    /// of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register(
        &self,
        tap: BorrowedFd<'_>,
        receive: BorrowedFd<'_>,
        send: BorrowedFd<'_>,
        wake: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let files: [RawFd; 4] = [tap.as_raw_fd(), receive.as_raw_fd(), send.as_raw_fd(), wake.as_raw_fd()];
        self.ring.submitter().register_files(&files)
    }

    /// Registers memory as provided buffers.
    ///
    /// # Errors
    /// The kernel's.
    pub fn provide(&self, buffers: &Buffers) -> io::Result<()> {
        // SAFETY: the ring memory is page-aligned, as large as its number of
        // entries says, initialised, and outlives this ring (module rules).
        unsafe {
            self.ring.submitter().register_buf_ring_with_flags(
                buffers.ring_address(),
                buffers.count(),
                buffers.group(),
                0,
            )
        }
    }

    /// Binds the ring to this thread and lets it run, with nothing but the operations of this
    /// module on the files that are registered: no filter of system calls sees what a ring does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enable(&self) -> io::Result<()> {
        let fixed = squeue::Flags::FIXED_FILE.bits();
        let mut allowed: Vec<_> = self.operations().into_iter().map(Restriction::sqe_op).collect();
        allowed.push(Restriction::sqe_flags_allowed(fixed | squeue::Flags::BUFFER_SELECT.bits()));
        allowed.push(Restriction::sqe_flags_required(fixed));
        allowed.push(Restriction::register_op(SYNC_CANCEL));
        self.ring.submitter().register_restrictions(&mut allowed)?;
        self.ring.submitter().register_enable_rings()
    }

    /// What this ring does. A kernel refuses to hear of operations that it does not have.
    fn operations(&self) -> Vec<u8> {
        let mut operations =
            vec![opcode::RecvMsgMulti::CODE, opcode::Read::CODE, opcode::SendMsg::CODE, opcode::Writev::CODE];
        operations.extend(self.features.read_multishot.then_some(opcode::ReadMulti::CODE));
        operations
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: every caller in this module passes operations whose memory
            // is in stable slots that stay until their completion.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
        }
    }

    /// Starts receiving datagrams until buffers run out.
    ///
    /// # Errors
    /// The kernel's, from a submission in between.
    pub fn arm_receive(&mut self, group: u16) -> io::Result<()> {
        let header: *const libc::msghdr = &raw const *self.receive_header;
        let entry = opcode::RecvMsgMulti::new(types::Fixed(File::Mesh as u32), header, group)
            .build()
            .user_data(Operation::Receive.to_user_data());
        self.push(&entry)
    }

    /// Starts reading frames: until buffers run out, or one where the kernel
    /// knows no multishot read.
    ///
    /// # Errors
    /// The kernel's, from a submission in between.
    pub fn arm_read(&mut self, group: u16, buffer_len: u32) -> io::Result<()> {
        let file = types::Fixed(File::Tap as u32);
        let entry = if self.features.read_multishot {
            opcode::ReadMulti::new(file, 0, group).build()
        } else {
            opcode::Read::new(file, std::ptr::null_mut(), buffer_len)
                .buf_group(group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        };
        self.push(&entry.user_data(Operation::Read.to_user_data()))
    }

    /// Waits for the next wake-up.
    ///
    /// # Errors
    /// The kernel's, from a submission in between.
    pub fn arm_wake(&mut self) -> io::Result<()> {
        let value: *mut u64 = &raw mut *self.wake;
        let entry = opcode::Read::new(types::Fixed(File::Wake as u32), value.cast(), 8)
            .build()
            .user_data(Operation::Wake.to_user_data());
        self.push(&entry)
    }

    /// Sends the messages of `slot` from `file`.
    ///
    /// # Errors
    /// The kernel's, from a submission in between.
    pub fn send(&mut self, file: File, sends: &mut Sends, slot: u16) -> io::Result<()> {
        for part in 0..sends.prepare(slot) {
            let message = sends.message(slot, part);
            let entry = opcode::SendMsg::new(types::Fixed(file as u32), message)
                .build()
                .user_data(Operation::Send(slot).to_user_data());
            self.push(&entry)?;
        }
        Ok(())
    }

    /// Writes one frame or super-frame, whose parts `deliveries` holds, to the tap; `more` receive
    /// buffers are chained to the one that it begins in.
    ///
    /// # Errors
    /// The kernel's, from a submission in between.
    pub fn write(
        &mut self,
        deliveries: &Deliveries,
        write: super::deliveries::Write,
        more: u16,
    ) -> io::Result<()> {
        let (parts, count) = deliveries.parts(write);
        let entry = opcode::Writev::new(types::Fixed(File::Tap as u32), parts, count)
            .build()
            .user_data(Operation::Write(write.buffer, more).to_user_data());
        self.push(&entry)
    }

    /// Writes the frame in a handed-over datagram to the tap.
    ///
    /// # Errors
    /// The kernel's, from a submission in between.
    pub fn write_handed(&mut self, handed: &HandedDelivery, slot: u16) -> io::Result<()> {
        let (parts, count) = handed.parts(slot);
        let entry = opcode::Writev::new(types::Fixed(File::Tap as u32), parts, count)
            .build()
            .user_data(Operation::WriteHanded(slot).to_user_data());
        self.push(&entry)
    }

    /// Submits what was pushed; completions of what the kernel did at once can
    /// then be taken.
    ///
    /// # Errors
    /// The kernel's. `EBUSY` and `EINTR` are none: the completions come first.
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter(0)
    }

    /// Submits, then waits for at least one completion.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn wait(&mut self) -> io::Result<()> {
        self.enter(1)
    }

    /// Submits, then waits so long for [`GATHERED`] completions and takes what came by then,
    /// which may be nothing (`min_wait_usec` of `io_uring_enter`(2)). Only where
    /// [`can_gather`](Self::can_gather) says so.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn gather(&mut self, time: Duration) -> io::Result<()> {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let args = types::SubmitArgs::new().min_wait_usec(micros);
        complete_first(self.ring.submitter().submit_with_args(GATHERED, &args))
    }

    /// Whether the kernel knows waits that end early (Linux 6.12).
    #[must_use]
    pub const fn can_gather(&self) -> bool {
        self.features.gathering
    }

    fn enter(&mut self, want: usize) -> io::Result<()> {
        complete_first(self.ring.submit_and_wait(want))
    }

    /// Operations that were pushed since the last submission.
    pub fn unsubmitted(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// Takes the completions that are there.
    pub fn completions(&mut self) -> impl Iterator<Item = Completion> + '_ {
        self.ring.completion().filter_map(|entry| {
            let operation = Operation::from_user_data(entry.user_data())?;
            Some(Completion { operation, result: entry.result(), flags: entry.flags() })
        })
    }

    /// Times since the last call that completions did not fit their queue. The
    /// kernel keeps them and delivers them late; those it could not even keep
    /// (no memory) count as well.
    pub fn take_overflows(&mut self) -> u32 {
        let kept = u32::from(self.ring.submission().cq_overflow());
        let lost = self.ring.completion().overflow();
        let new = lost.wrapping_sub(self.overflows);
        self.overflows = lost;
        kept + new
    }

    /// The header by which the kernel lays out received messages.
    #[must_use]
    pub fn receive_header(&self) -> &libc::msghdr {
        &self.receive_header
    }
}

/// What of an enter is no error: completions come first (`EBUSY`), or the time is over.
fn complete_first(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EBUSY | libc::EINTR | libc::EAGAIN | libc::ETIME)
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Whatever is in flight works on memory about to go: end it and wait.
        let everything = types::CancelBuilder::any();
        if let Err(error) = self.ring.submitter().register_sync_cancel(None, everything)
            && error.raw_os_error() != Some(libc::ENOENT)
        {
            tracing::debug!("ending operations of a ring: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::probe;
    use nix::sys::eventfd::EventFd;
    use std::os::fd::AsFd;
    use std::time::Instant;

    #[test]
    fn a_ring_for_an_old_kernel_names_no_operation_of_a_newer_one() {
        /// Operations of Linux 6.1 (`IORING_OP_LAST`).
        const LAST: u8 = 49;
        let ring = Ring::new(64, probe(&["multishot-read"]).unwrap()).unwrap();
        assert!(ring.operations().iter().all(|operation| *operation < LAST));
        ring.enable().unwrap();
    }

    #[test]
    fn gathering_ends_with_its_time_whether_or_not_anything_came() {
        let mut ring = Ring::new(64, probe(&[]).unwrap()).unwrap();
        let wake = EventFd::new().unwrap();
        let file = wake.as_fd();
        ring.register(file, file, file, file).unwrap();
        ring.enable().unwrap();
        ring.arm_wake().unwrap();
        ring.gather(Duration::from_millis(2)).unwrap();
        assert_eq!(ring.completions().count(), 0);
        wake.write(1).unwrap();
        let began = Instant::now();
        ring.gather(Duration::from_millis(2)).unwrap();
        assert_eq!(ring.completions().count(), 1);
        assert!(began.elapsed() >= Duration::from_millis(2), "others may still come");
    }

    #[test]
    fn a_ring_does_nothing_but_what_a_shard_needs_on_its_own_files() {
        let mut ring = Ring::new(64, probe(&[]).unwrap()).unwrap();
        let (own, foreign) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        own.write(1).unwrap();
        foreign.write(1).unwrap();
        let files = own.as_fd();
        ring.register(files, files, files, files).unwrap();
        ring.enable().unwrap();
        let mut value = 0_u64;
        let mut result = |entry: squeue::Entry| {
            ring.push(&entry.user_data(Operation::Wake.to_user_data())).unwrap();
            ring.wait().unwrap();
            ring.completions().next().unwrap().result
        };
        let place = (&raw mut value).cast();
        assert_eq!(result(opcode::Nop::new().build()), -libc::EACCES);
        assert_eq!(result(opcode::Close::new(types::Fixed(0)).build()), -libc::EACCES);
        let fd = types::Fd(foreign.as_fd().as_raw_fd());
        assert_eq!(result(opcode::Read::new(fd, place, 8).build()), -libc::EACCES);
        assert_eq!(result(opcode::Read::new(types::Fixed(File::Wake as u32), place, 8).build()), 8);
        assert_eq!(ring.ring.submitter().unregister_files().unwrap_err().raw_os_error(), Some(libc::EACCES));
    }
}
