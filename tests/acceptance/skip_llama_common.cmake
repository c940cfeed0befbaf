# llama-cpp-python needs libllama alone, but switches llama.cpp's tool library on by force. A variable of this name
# outranks that switch; leaving the library out halves the build.
set(LLAMA_BUILD_COMMON OFF)
