"One readable file a talker."
