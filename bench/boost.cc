// SPDX-License-Identifier: MIT
// A peer of the queue: Boost.Interprocess, whose messages are bounded in number
// and size, and which does nothing about deaths.
#include "bench.h"

#include <boost/interprocess/ipc/message_queue.hpp>
#include <string>
#include <vector>

using boost::interprocess::message_queue;

static void side(void *channel, bool sends, const struct row *row, long n)
{
    message_queue *q = static_cast<message_queue *>(channel);
    std::vector<char> buf(row->size, 'x');
    for (long i = 0; i < n; i++) {
        std::size_t size = row->size;
        unsigned priority;
        if (sends) {
            q->send(buf.data(), size, 0);
        } else {
            q->receive(buf.data(), buf.size(), size, priority);
        }
        must(size == row->size, "a message");
    }
}

double bench_boost(const struct row *row, long n)
{
    std::string name = "bench." + std::to_string(getpid());
    message_queue q(boost::interprocess::create_only, name.c_str(),
                    row->maxsize, row->size);
    must(message_queue::remove(name.c_str()), "remove");
    return bench_flow(row, side, &q, n);
}
