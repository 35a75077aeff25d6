// Golden vectors in C++17: read what `npreparam vectors golden --ops linear
// --dtypes float32` wrote, compute y = x w^T + b, and judge it.
//     g++ -std=c++17 -O2 golden.cpp -o golden_check
//     ./golden_check golden/linear/*.safetensors
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

struct Tensor {
    std::vector<size_t> shape;
    const char* data = nullptr;  // null: the file has no such tensor
    template <class T> T at(size_t i) const {
        T value;
        std::memcpy(&value, data + i * sizeof(T), sizeof(T));
        return value;
    }
};

// A safetensors file: 8 bytes, the header's length, little-endian; the header, JSON; then
// raw numbers.
struct File {
    std::string bytes, header;

    explicit File(const char* path) {
        std::ifstream in(path, std::ios::binary);
        bytes.assign(std::istreambuf_iterator<char>(in), {});
        uint64_t length = 0;
        std::memcpy(&length, bytes.data(), 8);
        header = bytes.substr(8, length);
    }

    // The whole numbers of the list that follows `key` behind position `from`.
    std::vector<size_t> list(const char* key, size_t from) const {
        std::vector<size_t> numbers;
        const char* at = std::strchr(header.c_str() + header.find(key, from), '[') + 1;
        while (*at != ']') {
            char* end;
            numbers.push_back(std::strtoull(at, &end, 10));
            at = *end == ',' ? end + 1 : end;
        }
        return numbers;
    }

    Tensor tensor(const std::string& name) const {
        const size_t entry = header.find('"' + name + "\":");
        if (entry == std::string::npos) return {};
        const size_t begin = 8 + header.size() + list("\"data_offsets\"", entry)[0];
        return {list("\"shape\"", entry), bytes.data() + begin};
    }
};

// The implementation on trial.
float dot(const Tensor& x, const Tensor& w, const Tensor& b, size_t row, size_t column) {
    const size_t terms = x.shape[1];
    float sum = b.data ? b.at<float>(column) : 0.0f;
    for (size_t k = 0; k < terms; ++k)
        sum += x.at<float>(row * terms + k) * w.at<float>(column * terms + k);
    return sum;
}

// |actual - expected| <= bound; NaN where NaN is expected, equal where it is infinite.
bool agrees(float actual, float expected, double bound) {
    if (std::isnan(expected)) return std::isnan(actual);
    if (std::isinf(expected)) return actual == expected;
    return std::abs(double(actual) - double(expected)) <= bound;
}

int main(int count, char** paths) {
    int wrong = 0;
    for (int i = 1; i < count; ++i) {
        const File file(paths[i]);
        const Tensor x = file.tensor("input.x"), w = file.tensor("input.w");
        const Tensor b = file.tensor("input.b");
        const Tensor expected = file.tensor("expected.y"), bound = file.tensor("bound.y");
        bool good = true;
        for (size_t row = 0; row < expected.shape[0]; ++row)
            for (size_t column = 0; column < expected.shape[1]; ++column) {
                const size_t place = row * expected.shape[1] + column;
                good &= agrees(dot(x, w, b, row, column), expected.at<float>(place),
                               bound.at<double>(place));
            }
        std::printf("%s %s\n", good ? "agrees" : "WRONG ", paths[i]);
        wrong += !good;
    }
    return wrong ? 1 : 0;
}
