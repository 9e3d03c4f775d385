"""Search by reward: which queries of a question are revised, rewards for many searches at a time, flags."""
